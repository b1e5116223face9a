package registrator

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"text/template"
	"time"
)

// TagTemplate is the value of -tags: a comma-separated list that may be a Go
// template over the [Container].
type TagTemplate struct {
	template *template.Template
	fixed    []string
}

// ParseTagTemplate reads the value of -tags. Empty gives no tags.
func ParseTagTemplate(text string) (*TagTemplate, error) {
	if !strings.Contains(text, "{{") {
		return &TagTemplate{fixed: splitTags(text)}, nil
	}
	t, err := template.New("tags").Funcs(tagFunctions(context.Background())).Parse(text)
	if err != nil {
		return nil, fmt.Errorf("parse -tags: %w", err)
	}
	return &TagTemplate{template: t}, nil
}

// Tags are the container's. They may be fetched over HTTP, if the operator's
// template says so.
func (t *TagTemplate) Tags(ctx context.Context, c *Container) ([]string, error) {
	if t.template == nil {
		return t.fixed, nil
	}
	clone, err := t.template.Clone()
	if err != nil {
		return nil, fmt.Errorf("evaluate -tags: %w", err)
	}
	var b strings.Builder
	if err := clone.Funcs(tagFunctions(ctx)).Execute(&b, c); err != nil {
		return nil, fmt.Errorf("evaluate -tags: %w", err)
	}
	return splitTags(b.String()), nil
}

// tagFunctions are those that gliderlabs/registrator has, with their argument
// order and their indulgence for indexes out of range. Where it took the whole
// program down (an empty list, a bad expression), the container's tags fail.
func tagFunctions(ctx context.Context) template.FuncMap {
	return template.FuncMap{
		"strSlice":   sliceString,
		"sIndex":     element,
		"mIndex":     func(key string, m map[string]string) string { return m[key] },
		"toUpper":    strings.ToUpper,
		"toLower":    strings.ToLower,
		"replace":    func(n int, old, new, s string) string { return strings.Replace(s, old, new, n) },
		"join":       func(separator string, list []string) string { return strings.Join(list, separator) },
		"split":      func(separator, s string) []string { return strings.Split(s, separator) },
		"splitIndex": func(i int, separator, s string) (string, error) { return element(i, strings.Split(s, separator)) },
		"matchFirstElement": func(expression string, list []string) (string, error) {
			all, err := matching(expression, list)
			if err != nil || len(all) == 0 {
				return "", err
			}
			return all[0], nil
		},
		"matchAllElements": matching,
		"httpGet":          func(url string) ([]byte, error) { return httpGet(ctx, url) },
		"jsonParse":        jsonValue,
	}
}

func sliceString(s string, bounds ...int) string {
	switch {
	case len(bounds) == 1 && 0 <= bounds[0] && bounds[0] <= len(s):
		return s[bounds[0]:]
	case len(bounds) == 2 && 0 <= bounds[0] && bounds[0] <= len(s) && bounds[1] <= len(s):
		if bounds[1] < bounds[0] {
			return s[bounds[0]:]
		}
		return s[bounds[0]:bounds[1]]
	}
	return s
}

// element is list[i]; a negative i counts from the end; one that is out of range
// gives the nearest.
func element(i int, list []string) (string, error) {
	if len(list) == 0 {
		return "", fmt.Errorf("index %d of an empty list", i)
	}
	if i < 0 {
		return list[max(len(list)+i, 0)], nil
	}
	return list[min(i, len(list)-1)], nil
}

func matching(expression string, list []string) ([]string, error) {
	re, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, s := range list {
		if re.MatchString(s) {
			found = append(found, s)
		}
	}
	return found, nil
}

const (
	httpGetTimeout = 10 * time.Second
	httpGetMost    = 1 << 20 // bytes
)

func httpGet(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, httpGetTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("httpGet: %s", response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, httpGetMost))
}

// jsonValue is the value at a path like "Additional::Country": a string without
// its quotes, anything else as JSON.
func jsonValue(body []byte, path string) (string, error) {
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return "", err
	}
	for _, key := range strings.Split(path, "::") {
		object, ok := value.(map[string]any)
		if !ok {
			return "", fmt.Errorf("no %q in JSON at %s", key, path)
		}
		if value, ok = object[key]; !ok {
			return "", fmt.Errorf("no %q in JSON at %s", key, path)
		}
	}
	if s, ok := value.(string); ok {
		return s, nil
	}
	text, err := json.Marshal(value)
	return string(text), err
}
