package inventory

import (
	"cmp"
	"fmt"
	"strings"
)

// Position is a place in a source.
type Position struct {
	// File is the path as the source was named by the user, or what stands for it
	// ("command line", the path of a program).
	File string `json:"file"`
	// Line counts from 1; 0 where the source has no lines or the whole file is meant.
	Line int `json:"line,omitempty"`
}

// String is "file:line", or "file" where there is no line.
func (p Position) String() string {
	if p.Line == 0 {
		return p.File
	}
	return fmt.Sprintf("%s:%d", p.File, p.Line)
}

func (p Position) compare(o Position) int {
	return cmp.Or(strings.Compare(p.File, o.File), cmp.Compare(p.Line, o.Line))
}

// Error is an inventory that cannot be understood, and where.
type Error struct {
	At      Position
	Message string
}

// Error is "file:line: message".
func (e *Error) Error() string { return e.At.String() + ": " + e.Message }

func errorAt(at Position, format string, arguments ...any) *Error {
	return &Error{At: at, Message: fmt.Sprintf(format, arguments...)}
}

// Severity says what a finding means for the platform.
type Severity string

const (
	// Refused findings keep a platform from being built.
	Refused Severity = "error"
	// Odd findings are worth a look, and stop nothing.
	Odd Severity = "warning"
)

// Finding is something in an inventory that is refused or odd.
type Finding struct {
	Severity Severity `json:"severity"`
	// Code is stable and short: "unknown-host", "listed-twice".
	Code    string   `json:"code"`
	At      Position `json:"at"`
	Message string   `json:"message"`
}

// String is "file:line: severity: message (code)".
func (f Finding) String() string {
	return fmt.Sprintf("%s: %s: %s (%s)", f.At, f.Severity, f.Message, f.Code)
}

// CompareFindings orders findings by place, then by code and message.
func CompareFindings(a, b Finding) int {
	return cmp.Or(a.At.compare(b.At), cmp.Compare(a.Code, b.Code), cmp.Compare(a.Message, b.Message))
}
