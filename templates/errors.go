package templates

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Error is a mistake in a template.
type Error struct {
	// File is the path of the operator's file, or the name of the built-in one.
	File string
	// Line is 0 where the mistake has no place.
	Line    int
	Message string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("template %s: %s", e.File, e.Message)
	}
	return fmt.Sprintf("template %s:%d: %s", e.File, e.Line, e.Message)
}

// MissingError says that a template asks for what has never been seen. It is not
// a mistake: rendering works as soon as all of it is there.
type MissingError struct {
	// File is as in [Error].
	File    string
	Missing []Missing
}

// Missing is one thing that is not there.
type Missing struct {
	// Name is as templates write it: "key(service/haproxy/maxconn)".
	Name string
	// Reason says why: "is not there yet", "no Consul is configured", an error.
	Reason string
}

func (e *MissingError) Error() string {
	all := make([]string, len(e.Missing))
	for i, m := range e.Missing {
		all[i] = m.Name + " " + m.Reason
	}
	return fmt.Sprintf("template %s: %s", e.File, strings.Join(all, "; "))
}

// place is where text/template says an error is. Its templates have no name here.
var place = regexp.MustCompile(`template: [^:\s]*:(\d+)(?::\d+)?: `)

// locate turns an error of text/template into one that names file and line.
func locate(err error, text composed) *Error {
	message := err.Error()
	for _, step := range []string{"parse: ", "execute: "} {
		message = strings.TrimPrefix(message, step)
	}
	// A template that another one calls puts its own place inside of the caller's;
	// the innermost is where the mistake is.
	found := place.FindAllStringSubmatchIndex(message, -1)
	if len(found) == 0 {
		return &Error{File: text.main(), Message: message}
	}
	last := found[len(found)-1]
	line, convErr := strconv.Atoi(message[last[2]:last[3]])
	if convErr != nil {
		return &Error{File: text.main(), Message: message}
	}
	file, line := text.origin(line)
	message = strings.Replace(message[last[1]:], `executing "" at `, "at ", 1)
	return &Error{File: file, Line: line, Message: message}
}

func isMissing(err error) bool {
	var missing *MissingError
	return errors.As(err, &missing)
}
