package vars

import (
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/inventory"
)

// Reader reads variables of one node on behalf of one component, and keeps what is
// wrong with them. A value that cannot be used reads as its default, so that one
// pass finds all problems. It is not safe for concurrent use.
type Reader struct {
	component string
	node      *cluster.Node
	problems  []component.Problem
}

// For is a reader of a node's variables.
func For(component string, n *cluster.Node) *Reader {
	return &Reader{component: component, node: n}
}

// Problems are what was found wrong so far; all of them are fatal.
func (r *Reader) Problems() []component.Problem { return slices.Clone(r.problems) }

// Bad says whether anything was found wrong so far.
func (r *Reader) Bad() bool { return len(r.problems) > 0 }

// Refuse notes that a variable has a value that cannot be used, for a reason that
// completes "NAME ...": "must be below 10".
func (r *Reader) Refuse(name, format string, arguments ...any) {
	v, _, _ := r.raw(name)
	r.refuse(name, v.At, fmt.Sprintf(format, arguments...))
}

func (r *Reader) refuse(name string, at inventory.Position, reason string) {
	where := ""
	advice := "set " + name + " in the inventory"
	if at.File != "" {
		where = at.String() + ": "
		advice = "change " + name + " in " + at.String()
	}
	r.problems = append(r.problems, component.Problem{
		Fatal: true, Code: "variable", Node: r.node.Name, Component: r.component,
		Message: where + name + " " + reason, Advice: advice,
	})
}

// raw is the variable as the inventory has it.
func (r *Reader) raw(name string) (v inventory.Variable, ok bool, err error) {
	if r.node.Host == nil {
		return inventory.Variable{}, false, nil
	}
	v, ok, err = r.node.Host.Var(name)
	if err == nil && v.Value == nil {
		ok = false
	}
	return v, ok, err
}

// value is the variable; one that cannot be resolved is a problem, and not set.
func (r *Reader) value(name string) (inventory.Variable, bool) {
	v, ok, err := r.raw(name)
	if err != nil {
		r.refuse(name, v.At, "cannot be told: "+strings.TrimPrefix(err.Error(), v.At.String()+": "))
		return inventory.Variable{}, false
	}
	return v, ok
}

// Set says whether the inventory sets a variable; one that is null is not set.
func (r *Reader) Set(name string) bool {
	_, ok, err := r.raw(name)
	return ok || err != nil
}

// Text is a scalar as a string on one line.
func (r *Reader) Text(name, otherwise string) string {
	v, ok := r.value(name)
	if !ok {
		return otherwise
	}
	s, ok := inventory.Text(v.Value)
	switch {
	case !ok:
		r.refuse(name, v.At, "must be a single value")
		return otherwise
	case strings.ContainsAny(s, "\n\r\x00"):
		r.refuse(name, v.At, "must be on one line")
		return otherwise
	}
	return s
}

// Lines are a text of several lines, as a key is; it ends with a newline, or is
// empty.
func (r *Reader) Lines(name string) string {
	v, ok := r.value(name)
	if !ok {
		return ""
	}
	s, ok := inventory.Text(v.Value)
	if !ok || strings.ContainsAny(s, "\r\x00") {
		r.refuse(name, v.At, "must be a text")
		return ""
	}
	if s = strings.TrimSpace(s); s != "" {
		s += "\n"
	}
	return s
}

// Matching is a text that must match a pattern as a whole; what names that kind
// of text for messages: "the name of a user".
func (r *Reader) Matching(name, otherwise string, pattern *regexp.Regexp, what string) string {
	s := r.Text(name, otherwise)
	if s != otherwise && pattern.FindString(s) != s {
		r.Refuse(name, "is %q, which is not %s", s, what)
		return otherwise
	}
	return s
}

// OneOf is a text that must be one of some.
func (r *Reader) OneOf(name, otherwise string, choices ...string) string {
	s := r.Text(name, otherwise)
	if s != otherwise && !slices.Contains(choices, s) {
		r.Refuse(name, "is %q, which is none of %s", s, strings.Join(choices, ", "))
		return otherwise
	}
	return s
}

// plainPath are paths that need quotes in no file and no unit.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9._/@+-]*$`)

// Path is an absolute path without characters that any program treats specially.
func (r *Reader) Path(name, otherwise string) string {
	s := r.Text(name, otherwise)
	if s == otherwise {
		return s
	}
	if !plainPath.MatchString(s) || slices.Contains(strings.Split(s, "/"), "..") {
		r.Refuse(name, "is %q, which is not an absolute path of letters, digits and ._@+-", s)
		return otherwise
	}
	return path.Clean(s)
}

// Int is a whole number between least and most, both included.
func (r *Reader) Int(name string, otherwise, least, most int) int {
	v, ok := r.value(name)
	if !ok {
		return otherwise
	}
	n, ok := integer(v.Value)
	switch {
	case !ok:
		r.refuse(name, v.At, "must be a whole number")
	case n < least || n > most:
		r.refuse(name, v.At, fmt.Sprintf("is %d, and must be %d to %d", n, least, most))
	default:
		return n
	}
	return otherwise
}

// Port is a port, 1 to 65535.
func (r *Reader) Port(name string, otherwise int) int {
	return r.Int(name, otherwise, 1, math.MaxUint16)
}

func integer(value any) (int, bool) {
	switch x := value.(type) {
	case int64:
		return int(x), true
	case *big.Int:
		return 0, false
	case float64:
		if x == math.Trunc(x) && math.Abs(x) < 1<<53 {
			return int(x), true
		}
	case string, inventory.Verbatim:
		n, err := strconv.Atoi(strings.TrimSpace(fmt.Sprint(x)))
		return n, err == nil
	}
	return 0, false
}

// Bool is true or false; strings are understood as Ansible understands them.
func (r *Reader) Bool(name string, otherwise bool) bool {
	v, ok := r.value(name)
	if !ok {
		return otherwise
	}
	switch x := v.Value.(type) {
	case bool:
		return x
	case int64:
		if x == 0 || x == 1 {
			return x == 1
		}
	case string, inventory.Verbatim:
		switch strings.ToLower(strings.TrimSpace(fmt.Sprint(x))) {
		case "yes", "on", "y", "t", "true", "1":
			return true
		case "no", "off", "n", "f", "false", "0":
			return false
		}
	}
	r.refuse(name, v.At, "must be true or false")
	return otherwise
}

// Duration is a time that is not negative, as Go writes it: "90s", "10m", "1h30m".
// A bare number is in seconds.
func (r *Reader) Duration(name string, otherwise time.Duration) time.Duration {
	v, ok := r.value(name)
	if !ok {
		return otherwise
	}
	if n, ok := integer(v.Value); ok {
		if n < 0 || n > math.MaxInt32 {
			r.refuse(name, v.At, "must be a time that is not negative")
			return otherwise
		}
		return time.Duration(n) * time.Second
	}
	s, ok := inventory.Text(v.Value)
	d, err := time.ParseDuration(strings.TrimSpace(s))
	if !ok || err != nil || d < 0 {
		r.refuse(name, v.At, `must be a time such as "90s" or "10m"`)
		return otherwise
	}
	return d
}

// List is a list of texts, each on one line. A text is split at commas.
func (r *Reader) List(name string, otherwise []string) []string {
	v, ok := r.value(name)
	if !ok {
		return otherwise
	}
	items, isList := v.Value.([]any)
	if !isList {
		s, ok := inventory.Text(v.Value)
		if !ok {
			r.refuse(name, v.At, "must be a list")
			return otherwise
		}
		for part := range strings.SplitSeq(s, ",") {
			items = append(items, part)
		}
	}
	all := make([]string, 0, len(items))
	for _, item := range items {
		s, ok := inventory.Text(item)
		s = strings.TrimSpace(s)
		if !ok || strings.ContainsAny(s, "\n\r\x00") {
			r.refuse(name, v.At, "must be a list of single values on one line each")
			return otherwise
		}
		if s != "" {
			all = append(all, s)
		}
	}
	return all
}

// Map is a mapping of names to texts, each on one line; for settings that are
// passed through.
func (r *Reader) Map(name string) map[string]string {
	v, ok := r.value(name)
	if !ok {
		return nil
	}
	entries, ok := v.Value.(map[string]any)
	if !ok {
		r.refuse(name, v.At, "must be a mapping")
		return nil
	}
	all := make(map[string]string, len(entries))
	for key, value := range entries {
		s, ok := inventory.Text(value)
		if !ok || strings.ContainsAny(key+s, "\n\r\x00") {
			r.refuse(name, v.At, fmt.Sprintf("must have a single value on one line for %q", key))
			return nil
		}
		all[key] = s
	}
	return all
}

// Addresses are a list of IP addresses.
func (r *Reader) Addresses(name string, otherwise []netip.Addr) []netip.Addr {
	if !r.Set(name) {
		return otherwise
	}
	var all []netip.Addr
	for _, s := range r.List(name, nil) {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			r.Refuse(name, "has %q, which is not an IP address", s)
			return otherwise
		}
		all = append(all, a)
	}
	return all
}

// Object is a mapping with any values, as for a document in JSON; nil if it is not
// set. Values that are encrypted are refused.
func (r *Reader) Object(name string) map[string]any {
	v, ok := r.value(name)
	if !ok {
		return nil
	}
	entries, ok := plain(v.Value).(map[string]any)
	if !ok {
		r.refuse(name, v.At, "must be a mapping, without encrypted values")
		return nil
	}
	return entries
}

// plain is a value of types that JSON knows; nil if it is none.
func plain(value any) any {
	switch x := value.(type) {
	case bool, int64, float64, string:
		return x
	case *big.Int:
		return x
	case inventory.Verbatim:
		return string(x)
	case []any:
		all := make([]any, len(x))
		for i, item := range x {
			if all[i] = plain(item); all[i] == nil {
				return nil
			}
		}
		return all
	case map[string]any:
		all := make(map[string]any, len(x))
		for key, item := range x {
			if all[key] = plain(item); all[key] == nil {
				return nil
			}
		}
		return all
	}
	return nil
}
