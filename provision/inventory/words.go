package inventory

import (
	"errors"
	"strings"
)

var (
	errOpenQuote  = errors.New("a quotation is not closed")
	errOpenEscape = errors.New("a backslash has nothing after it")
)

// words splits a line as a POSIX shell does: at white space outside quotes. With
// comments, a # outside quotes ends the line, also within a word, as in Python's
// shlex, which Ansible uses.
func words(line string, comments bool) ([]string, error) {
	var (
		all     []string
		word    strings.Builder
		started bool // a word was begun, maybe by an empty quotation
	)
	end := func() {
		if started {
			all = append(all, word.String())
		}
		word.Reset()
		started = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			end()
		case c == '#' && comments:
			end()
			return all, nil
		case c == '\'':
			closing := strings.IndexByte(line[i+1:], '\'')
			if closing < 0 {
				return nil, errOpenQuote
			}
			word.WriteString(line[i+1 : i+1+closing])
			started = true
			i += closing + 1
		case c == '"':
			started = true
			for i++; ; i++ {
				if i >= len(line) {
					return nil, errOpenQuote
				}
				if line[i] == '"' {
					break
				}
				if line[i] == '\\' {
					if i+1 >= len(line) {
						return nil, errOpenEscape
					}
					// Within double quotes a backslash escapes only these two.
					if line[i+1] == '"' || line[i+1] == '\\' {
						i++
					}
				}
				word.WriteByte(line[i])
			}
		case c == '\\':
			if i+1 >= len(line) {
				return nil, errOpenEscape
			}
			i++
			word.WriteByte(line[i])
			started = true
		default:
			word.WriteByte(c)
			started = true
		}
	}
	end()
	return all, nil
}

// Words splits a line as a POSIX shell does, without comments; as for variables
// that hold arguments of a command.
func Words(line string) ([]string, error) { return words(line, false) }
