package watch

import (
	"cmp"
	"strings"
)

// Finding is something in the input that could not be honoured.
type Finding struct {
	// Code is stable and short, for metrics and for looking it up in the
	// documentation: "port-taken", "invalid-value", "not-supported-yet".
	Code string `json:"code"`
	// Source is where it came from ("consul/dc1"); empty where it is no single one.
	Source string `json:"source,omitempty"`
	// Service is the service or app concerned.
	Service string `json:"service,omitempty"`
	// Key is the tag, metadata key, label or field, shortened and printable.
	Key string `json:"key,omitempty"`
	// Message says what is wrong, with the value.
	Message string `json:"message"`
	// Instead says what was done instead, and what the owner can do.
	Instead string `json:"instead,omitempty"`
}

// String is the finding on one line.
func (f Finding) String() string {
	var b strings.Builder
	b.WriteString(f.Code)
	for _, s := range []string{f.Source, f.Service, f.Key} {
		if s != "" {
			b.WriteString(" " + s)
		}
	}
	b.WriteString(": " + f.Message)
	if f.Instead != "" {
		b.WriteString("; " + f.Instead)
	}
	return b.String()
}

// Compare orders findings by code, service, source, key and message.
func (f Finding) Compare(o Finding) int {
	return cmp.Or(
		cmp.Compare(f.Code, o.Code),
		cmp.Compare(f.Service, o.Service),
		cmp.Compare(f.Source, o.Source),
		cmp.Compare(f.Key, o.Key),
		cmp.Compare(f.Message, o.Message),
		cmp.Compare(f.Instead, o.Instead),
	)
}

// Printable is a foreign value made fit for a log line, a finding or a page:
// control characters and invalid UTF-8 become "?", and what is longer than
// 120 runes is cut and marked with "…".
func Printable(s string) string { return PrintableUpTo(s, 120) }

// PrintableUpTo is like [Printable], cut after another number of runes.
func PrintableUpTo(s string, most int) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n == most {
			b.WriteRune('…')
			break
		}
		if r < 0x20 || r == 0x7f || r == '\uFFFD' || (r >= 0x80 && r < 0xa0) {
			r = '?'
		}
		b.WriteRune(r)
		n++
	}
	return b.String()
}
