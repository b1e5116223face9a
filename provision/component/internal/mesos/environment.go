package mesos

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// Environment is a file of "NAME=value" lines that a unit reads, in the order in
// which they were set.
type Environment struct {
	names  []string
	values map[string]string
}

// Set sets a variable; one that is set again keeps its place.
func (e *Environment) Set(name, value string) {
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, again := e.values[name]; !again {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

// Unset removes a variable.
func (e *Environment) Unset(name string) {
	delete(e.values, name)
	e.names = slices.DeleteFunc(e.names, func(n string) bool { return n == name })
}

// Get is the value of a variable; empty if it is not set.
func (e *Environment) Get(name string) string { return e.values[name] }

// String is the file.
func (e *Environment) String() string {
	var b strings.Builder
	b.WriteString("# Written by mi-lb bootstrap, which overwrites changes.\n")
	for _, name := range e.names {
		fmt.Fprintf(&b, "%s=%s\n", name, e.values[name])
	}
	return b.String()
}

// SetGiven sets a variable to a value of the inventory's, which must be one that
// systemd reads as it is written.
func (e *Environment) SetGiven(r *vars.Reader, name, variable, value string) {
	if !plainValue.MatchString(value) {
		r.Refuse(variable, "is %q: it may have no backslashes, and begin with no quote", value)
		return
	}
	e.Set(name, value)
}

var (
	// plainValue is what is not unquoted.
	plainValue = regexp.MustCompile(`^(?:[^"'\\\s\x00-\x1f][^\\\x00-\x1f]*)?$`)
	optionName = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	// Quotes, backslashes and what a shell or systemd might expand are for files:
	// Mesos reads "file:///path" wherever it takes a value.
	optionValue = regexp.MustCompile(`^[^"'\\\x00-\x1f]*$`)
)

// Options sets what the operator gives beyond what mi-lb knows: a mapping of flags
// without dashes to values. Flags that hold secrets or that the cluster depends
// upon are refused.
func (e *Environment) Options(r *vars.Reader, variable, prefix string, own ...string) {
	given := r.Map(variable)
	for _, flag := range slices.Sorted(maps.Keys(given)) {
		switch {
		case !optionName.MatchString(flag):
			r.Refuse(variable, "has %q, which is no name of a flag: write agent_ping_timeout, without dashes", flag)
		case slices.Contains(own, flag):
			r.Refuse(variable, "has %s, which mi-lb sets by itself", flag)
		case !optionValue.MatchString(given[flag]):
			r.Refuse(variable, "has a value for %s with quotes or backslashes; put it into a file and give file:///path", flag)
		default:
			e.Set(prefix+strings.ToUpper(flag), given[flag])
		}
	}
}
