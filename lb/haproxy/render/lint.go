package render

import (
	"bytes"
	"fmt"
	"strings"

	parser "github.com/haproxytech/client-native/v5/config-parser"
	"github.com/haproxytech/client-native/v5/config-parser/options"
	"github.com/haproxytech/client-native/v5/config-parser/types"
)

// Section is what a configuration has in one place.
type Section struct {
	// Kind is HAProxy's word: "global", "frontend", "backend" …
	Kind string
	// Name is "" for global and an unnamed defaults section.
	Name    string
	Servers []types.Server
	// Unknown are the lines that the parser, which knows HAProxy 2.9, does not know.
	// They need not be wrong: `haproxy -c` has the last word.
	Unknown []Line
}

// Line is a line of a file.
type Line struct {
	// Number is 0 where it is not known.
	Number int
	Text   string
}

// maxLine is the longest line that the parser reads; it stops at a longer one
// without a word.
const maxLine = 64 << 10

// Lint reads a configuration, whoever wrote it: its sections with their servers,
// and the lines in them that are not known.
func Lint(config []byte) ([]Section, error) {
	number := 0
	for line := range bytes.Lines(config) {
		if number++; len(line) >= maxLine {
			return nil, fmt.Errorf("read configuration: line %d has %d bytes; the most is %d", number, len(line), maxLine)
		}
	}
	p, err := parser.New(options.String(string(config)), options.NoNamedDefaultsFrom)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var sections []Section
	for _, s := range split(config) {
		kind := parser.Section(s.kind)
		name := s.name
		switch kind {
		case parser.Global:
			name = parser.GlobalSectionName
		case parser.Defaults:
			if name == "" {
				name = parser.DefaultSectionName
			}
		}
		found := Section{Kind: s.kind, Name: s.name}
		if data, err := p.Get(kind, name, "server"); err == nil {
			if servers, ok := data.([]types.Server); ok {
				found.Servers = servers
			}
		}
		if data, err := p.Get(kind, name, ""); err == nil {
			if lines, ok := data.([]types.UnProcessed); ok {
				for _, line := range lines {
					text := strings.TrimSpace(line.Value)
					found.Unknown = append(found.Unknown, Line{Number: lineNumber(config, s.header, text), Text: text})
				}
			}
		}
		sections = append(sections, found)
	}
	return sections, nil
}

// lineNumber finds a line of a section.
func lineNumber(config []byte, header, text string) int {
	number, inside := 0, false
	for line := range bytes.Lines(config) {
		number++
		switch trimmed := string(bytes.TrimSpace(line)); {
		case trimmed == header:
			inside = true
		case inside && trimmed == text:
			return number
		}
	}
	return 0
}
