package cluster

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/mi-lb/mi-lb/provision/inventory"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// reader reads variables of hosts, and keeps what is wrong with them.
type reader struct {
	findings []inventory.Finding
}

func (r *reader) refuse(at inventory.Position, code, format string, arguments ...any) {
	r.findings = append(r.findings, inventory.Finding{Severity: inventory.Refused, Code: code, At: at, Message: fmt.Sprintf(format, arguments...)})
}

func (r *reader) odd(at inventory.Position, code, format string, arguments ...any) {
	r.findings = append(r.findings, inventory.Finding{Severity: inventory.Odd, Code: code, At: at, Message: fmt.Sprintf(format, arguments...)})
}

// value is the variable under the first of its names that is set. A value that
// cannot be resolved is refused, and counts as not set.
func (r *reader) value(h *inventory.Host, name string) (inventory.Variable, string, bool) {
	for _, alias := range aliases(name) {
		v, ok, err := h.Var(alias)
		if err != nil {
			message := strings.TrimPrefix(err.Error(), v.At.String()+": ")
			r.refuse(v.At, "variable", "%s", message)
			return inventory.Variable{}, alias, false
		}
		if ok && v.Value != nil {
			return v, alias, true
		}
	}
	return inventory.Variable{}, name, false
}

// text is a scalar as a string; "" where it is not set.
func (r *reader) text(h *inventory.Host, name string) (string, inventory.Position) {
	v, alias, ok := r.value(h, name)
	if !ok {
		return "", inventory.Position{}
	}
	s, ok := inventory.Text(v.Value)
	if !ok {
		r.refuse(v.At, "variable", "%s of host %s must be a single value", alias, h.Name())
		return "", v.At
	}
	if strings.ContainsAny(s, "\n\r\x00") {
		r.refuse(v.At, "variable", "%s of host %s has more than one line", alias, h.Name())
		return "", v.At
	}
	return s, v.At
}

func (r *reader) secret(h *inventory.Host, name string) redact.Text {
	s, _ := r.text(h, name)
	return redact.New(s)
}

// boolean is true, false or, where it is not set, the given value. Strings are
// understood as Ansible understands them.
func (r *reader) boolean(h *inventory.Host, name string, otherwise bool) bool {
	v, alias, ok := r.value(h, name)
	if !ok {
		return otherwise
	}
	switch value := v.Value.(type) {
	case bool:
		return value
	case int64:
		if value == 0 || value == 1 {
			return value == 1
		}
	case string:
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "yes", "true", "on", "1", "y", "t":
			return true
		case "no", "false", "off", "0", "n", "f", "":
			return false
		}
	}
	r.refuse(v.At, "variable", "%s of host %s is neither yes nor no", alias, h.Name())
	return otherwise
}

// number is a whole number in a range; 0 where it is not set.
func (r *reader) number(h *inventory.Host, name string, least, most int64) (int, inventory.Position) {
	v, alias, ok := r.value(h, name)
	if !ok {
		return 0, inventory.Position{}
	}
	n, ok := v.Value.(int64)
	if s, isText := v.Value.(string); isText && s != "" {
		_, err := fmt.Sscanf(s+"\n", "%d\n", &n)
		ok = err == nil
	}
	if !ok || n < least || n > most {
		shown, _ := inventory.Text(v.Value)
		r.refuse(v.At, "variable", "%s of host %s is %q; it must be a number from %d to %d", alias, h.Name(), shown, least, most)
		return 0, v.At
	}
	return int(n), v.At
}

// address is an IP address; invalid where it is not set.
func (r *reader) address(h *inventory.Host, name string) (netip.Addr, inventory.Position) {
	s, at := r.text(h, name)
	if s == "" {
		return netip.Addr{}, at
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		r.refuse(at, "variable", "%s of host %s is %q, which is no address of a machine", name, h.Name(), s)
		return netip.Addr{}, at
	}
	return a.Unmap(), at
}

// list is a list of strings, or one string.
func (r *reader) list(h *inventory.Host, name string) []string {
	v, alias, ok := r.value(h, name)
	if !ok {
		return nil
	}
	items, ok := v.Value.([]any)
	if !ok {
		items = []any{v.Value}
	}
	var all []string
	for _, item := range items {
		s, ok := inventory.Text(item)
		if !ok || strings.ContainsAny(s, "\n\r") {
			r.refuse(v.At, "variable", "%s of host %s must be a list of lines", alias, h.Name())
			return nil
		}
		all = append(all, s)
	}
	return all
}
