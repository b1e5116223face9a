package encode

import (
	"errors"
	"strings"
)

// ErrExpansion is the error of [Words] for a line whose words depend on the
// environment HAProxy runs in.
var ErrExpansion = errors.New("the line has an expansion of the environment")

// Words splits a line of the configuration the way HAProxy does: at blanks, with
// backslashes, weak and strong quotes undone and the comment dropped. A "$" in
// weak quotes, where HAProxy expands the environment, gives ErrExpansion; an open
// quote or a final backslash gives another error.
func Words(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	open, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quote != '\'':
			if i++; i == len(line) {
				return nil, errors.New("the line ends in a backslash")
			}
			next, skip, err := unescape(line[i:], quote)
			if err != nil {
				return nil, err
			}
			word.WriteString(next)
			open, i = true, i+skip
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, open = c, true
		case c == '$' && quote == '"':
			return nil, ErrExpansion
		case quote == 0 && c == '#':
			i = len(line)
		case quote == 0 && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			if open {
				words = append(words, word.String())
			}
			word.Reset()
			open = false
		default:
			word.WriteByte(c)
			open = true
		}
	}
	if quote != 0 {
		return nil, errors.New("the line has an open quote")
	}
	if open {
		words = append(words, word.String())
	}
	return words, nil
}

// unescape reads what follows a backslash, and says how many more bytes than one
// it took.
func unescape(s string, quote byte) (text string, skip int, err error) {
	switch c := s[0]; c {
	case ' ', '#', '\\', '"', '\'':
		return string(c), 0, nil
	case '$':
		if quote == '"' {
			return "$", 0, nil
		}
		return `\$`, 0, nil
	case 'r':
		return "\r", 0, nil
	case 'n':
		return "\n", 0, nil
	case 't':
		return "\t", 0, nil
	case 'x':
		if len(s) < 3 {
			return "", 0, errors.New(`the line has "\x" without two hexadecimal digits`)
		}
		high, low := hexDigit(s[1]), hexDigit(s[2])
		if high < 0 || low < 0 {
			return "", 0, errors.New(`the line has "\x" without two hexadecimal digits`)
		}
		return string([]byte{byte(high<<4 | low)}), 2, nil
	default:
		return `\` + string(c), 0, nil
	}
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
