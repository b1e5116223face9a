package marathon

import (
	"regexp"
	"slices"
	"strings"
)

// selector is one condition on an app's labels.
type selector struct {
	key    string
	op     string // "exists", "==", "!=", "in", "notin"
	values []string
}

var (
	labelWord = `[A-Za-z0-9_.-]+`
	existence = regexp.MustCompile(`^(` + labelWord + `)$`)
	equality  = regexp.MustCompile(`^(` + labelWord + `)\s*(==|!=)\s*(` + labelWord + `)$`)
	inSet     = regexp.MustCompile(`^(` + labelWord + `)\s+(in|notin)\s+\(([^()]*)\)$`)
)

// parseSelectors reads Marathon's label query: conditions joined by commas, all
// of which must hold.
func parseSelectors(query string) ([]selector, error) {
	var selectors []selector
	for _, part := range splitOutsideParentheses(query) {
		part = strings.TrimSpace(part)
		if match := existence.FindStringSubmatch(part); match != nil {
			selectors = append(selectors, selector{key: match[1], op: "exists"})
		} else if match := equality.FindStringSubmatch(part); match != nil {
			selectors = append(selectors, selector{match[1], match[2], []string{match[3]}})
		} else if match := inSet.FindStringSubmatch(part); match != nil {
			var values []string
			for _, value := range strings.Split(match[3], ",") {
				values = append(values, strings.TrimSpace(value))
			}
			selectors = append(selectors, selector{match[1], match[2], values})
		} else {
			return nil, message(422, "Can not parse label selector %s", query)
		}
	}
	return selectors, nil
}

func splitOutsideParentheses(query string) []string {
	depth := 0
	var parts []string
	start := 0
	for i, r := range query {
		switch r {
		case '(':
			depth++
		case ')':
			depth--
		case ',':
			if depth == 0 {
				parts = append(parts, query[start:i])
				start = i + 1
			}
		}
	}
	return append(parts, query[start:])
}

func (s selector) matches(labels map[string]string) bool {
	value, has := labels[s.key]
	switch s.op {
	case "exists":
		return has
	case "!=", "notin":
		return has && !slices.Contains(s.values, value)
	}
	return has && slices.Contains(s.values, value)
}
