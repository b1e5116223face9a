package inventory

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

func isAddress(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func directoryOf(source string) string {
	absolute, err := filepath.Abs(source)
	if err != nil {
		return filepath.Dir(source)
	}
	return filepath.Dir(absolute)
}

// Var is the value of a variable for this host, with templates that name other
// variables resolved and what is encrypted decrypted. ok is false if it is not
// set. The error says file and line.
func (h *Host) Var(name string) (v Variable, ok bool, err error) {
	return h.resolveVar(name, nil)
}

// deepestTemplate bounds how far variables can lead to each other.
const deepestTemplate = 64

func (h *Host) resolveVar(name string, trail []string) (Variable, bool, error) {
	v, ok := h.effective[name]
	if !ok {
		return Variable{}, false, nil
	}
	key := h.name + "\x00" + name
	if slices.Contains(trail, key) || len(trail) > deepestTemplate {
		return v, true, errorAt(v.At, "%s of host %s leads back to itself", name, h.name)
	}
	value, err := h.resolve(v.Value, v.At, append(trail, key))
	if err != nil {
		if e, isPlaced := err.(*Error); isPlaced && e.At != v.At {
			return v, true, err
		}
		return v, true, errorAt(v.At, "%s of host %s: %s", name, h.name, strings.TrimPrefix(err.Error(), v.At.String()+": "))
	}
	return Variable{value, v.At}, true, nil
}

func (h *Host) resolve(value any, at Position, trail []string) (any, error) {
	switch v := value.(type) {
	case Verbatim:
		return string(v), nil
	case *Encrypted:
		plain, err := v.keyring.decrypt(v.ciphertext)
		if err != nil {
			return nil, err
		}
		return plain, nil
	case []any:
		items := make([]any, len(v))
		for i, item := range v {
			resolved, err := h.resolve(item, at, trail)
			if err != nil {
				return nil, err
			}
			items[i] = resolved
		}
		return items, nil
	case map[string]any:
		items := make(map[string]any, len(v))
		for key, item := range v {
			resolved, err := h.resolve(item, at, trail)
			if err != nil {
				return nil, err
			}
			items[key] = resolved
		}
		return items, nil
	case string:
		return h.resolveString(v, trail)
	}
	return value, nil
}

// resolveString replaces "{{ name }}". A string that is nothing else takes the
// type of the value, as in Ansible.
func (h *Host) resolveString(s string, trail []string) (any, error) {
	if !isTemplate(s) {
		return s, nil
	}
	if strings.Contains(s, "{%") || strings.Contains(s, "{#") {
		return nil, fmt.Errorf("%q is a Jinja template with statements, which mi-lb does not run; write the value itself", s)
	}
	var b strings.Builder
	for rest := s; ; {
		before, after, ok := strings.Cut(rest, "{{")
		b.WriteString(before)
		if !ok {
			return b.String(), nil
		}
		expression, tail, ok := strings.Cut(after, "}}")
		if !ok {
			return nil, fmt.Errorf("%q has {{ without }}", s)
		}
		value, err := h.evaluate(strings.TrimSpace(expression), trail)
		if err != nil {
			return nil, err
		}
		if rest == s && before == "" && tail == "" {
			if value == nil {
				return "", nil
			}
			return value, nil
		}
		text, ok := Text(value)
		if !ok {
			return nil, fmt.Errorf("%q puts a list or mapping into a string", s)
		}
		b.WriteString(text)
		rest = tail
	}
}

var (
	expressionName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*`)
	expressionPart = regexp.MustCompile(`^(?:\.([A-Za-z_][A-Za-z0-9_]*)|\[\s*(?:'([^']*)'|"([^"]*)"|(\d+)|([A-Za-z_][A-Za-z0-9_]*))\s*\])`)
)

// evaluate follows a path such as name, name.key, name['key'][0] or
// hostvars['host'].name. Anything else that Jinja knows is an error.
func (h *Host) evaluate(expression string, trail []string) (any, error) {
	name := expressionName.FindString(expression)
	if name == "" {
		return nil, notResolved(expression)
	}
	rest := expression[len(name):]
	var path []any
	for rest != "" {
		m := expressionPart.FindStringSubmatch(rest)
		if m == nil {
			return nil, notResolved(expression)
		}
		switch {
		case m[4] != "":
			n, err := strconv.Atoi(m[4])
			if err != nil {
				return nil, notResolved(expression)
			}
			path = append(path, n)
		case m[5] != "":
			key, err := h.evaluate(m[5], trail)
			if err != nil {
				return nil, err
			}
			text, ok := Text(key)
			if !ok {
				return nil, notResolved(expression)
			}
			path = append(path, text)
		default:
			path = append(path, m[1]+m[2]+m[3])
		}
		rest = strings.TrimSpace(rest[len(m[0]):])
	}
	host := h
	if name == "hostvars" {
		if len(path) < 2 {
			return nil, notResolved(expression)
		}
		other, _ := path[0].(string)
		if host = h.inventory.hosts[other]; host == nil {
			return nil, fmt.Errorf("{{ %s }} names host %q, which is not in the inventory", expression, other)
		}
		if name, _ = path[1].(string); name == "" {
			return nil, notResolved(expression)
		}
		path = path[2:]
	}
	v, ok, err := host.resolveVar(name, trail)
	if err != nil {
		return nil, err
	}
	value := v.Value
	if !ok {
		if value, ok = host.magic(name); !ok {
			return nil, fmt.Errorf("{{ %s }} names the variable %q, which is not set for host %s", expression, name, host.name)
		}
	}
	for _, part := range path {
		switch p := part.(type) {
		case int:
			items, ok := value.([]any)
			if !ok || p >= len(items) {
				return nil, fmt.Errorf("{{ %s }}: there is no item %d", expression, p)
			}
			value = items[p]
		case string:
			items, _ := value.(map[string]any)
			item, ok := items[p]
			if !ok {
				return nil, fmt.Errorf("{{ %s }}: there is no key %q", expression, p)
			}
			value = item
		}
	}
	return value, nil
}

func notResolved(expression string) error {
	return fmt.Errorf("{{ %s }} is more than the name of a variable, which is all that mi-lb resolves; write the value itself", expression)
}
