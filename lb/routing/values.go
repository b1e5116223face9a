package routing

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// The parsers below are the only way for a value that somebody else wrote into a
// table. Each accepts a closed set of characters for its place, so that whatever
// writes the table down needs no trust in it.

const (
	maxHost   = 253
	maxLabel  = 63
	maxPath   = 1024
	maxHeader = 64
)

var errEmpty = errors.New("is empty")

// parseHost accepts a host name, in any case, with an optional trailing dot, and
// "*." in the place of the first label; the result is in lower case.
func parseHost(s string) (string, error) {
	host := strings.ToLower(strings.TrimSuffix(s, "."))
	rest := strings.TrimPrefix(host, "*.")
	if rest == "" {
		return "", errEmpty
	}
	if len(host) > maxHost {
		return "", fmt.Errorf("is longer than %d characters", maxHost)
	}
	for label := range strings.SplitSeq(rest, ".") {
		if err := checkLabel(label); err != nil {
			return "", err
		}
	}
	return host, nil
}

func checkLabel(label string) error {
	if label == "" {
		return errors.New("has an empty label")
	}
	if len(label) > maxLabel {
		return fmt.Errorf("has a label longer than %d characters", maxLabel)
	}
	for i := range len(label) {
		if c := label[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
			return fmt.Errorf("has a character that no host name has, %q", watch.Printable(label[i:]))
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// pathPunctuation is RFC 3986's for a path segment, without what configuration
// languages give a meaning to: $, quotes, backslash, #, brackets.
const pathPunctuation = "/-._~!&()*+,;=:@%"

// parsePath accepts the absolute path of a URL. A trailing slash does not matter.
func parsePath(s string) (string, error) {
	switch {
	case s == "":
		return "", errEmpty
	case s[0] != '/':
		return "", errors.New(`does not begin with "/"`)
	case len(s) > maxPath:
		return "", fmt.Errorf("is longer than %d characters", maxPath)
	case strings.Contains(s, "//"):
		return "", errors.New(`has "//"`)
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && strings.IndexByte(pathPunctuation, c) < 0 {
			return "", fmt.Errorf("has a character that a path cannot have here, %q", watch.Printable(s[i:]))
		}
		if s[i] == '%' && (i+2 >= len(s) || !isHex(s[i+1]) || !isHex(s[i+2])) {
			return "", fmt.Errorf("has %q, which is no percent-encoding", watch.Printable(s[i:]))
		}
	}
	if s != "/" {
		s = strings.TrimSuffix(s, "/")
	}
	return s, nil
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

// parseAppID accepts a Marathon app id; the result is in lower case.
func parseAppID(s string) (string, error) {
	if s == "" || s[0] != '/' || len(s) > maxPath {
		return "", errors.New("is no absolute app id")
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' && c != '.' && c != '/' && c != '_' {
			return "", fmt.Errorf("has a character that no app id has, %q", watch.Printable(s[i:]))
		}
	}
	return strings.ToLower(s), nil
}

// parsePort accepts 1 to 65535.
func parsePort(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > 65535 {
		return 0, errors.New("is no port (1 to 65535)")
	}
	return n, nil
}

// parseNumber accepts a whole number between least and most.
func parseNumber(s string, least, most int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("is no whole number from %d to %d", least, most)
	}
	return n, nil
}

// parseBool accepts what people write: true/false, yes/no, on/off, 1/0, t/f, y/n.
func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "t", "yes", "y", "on", "1":
		return true, nil
	case "false", "f", "no", "n", "off", "0":
		return false, nil
	}
	return false, errors.New("is neither true nor false")
}

// maxTimeout keeps a typing error (days for seconds) from holding connections for good.
const maxTimeout = 24 * time.Hour

// parseDuration accepts a positive duration with a unit: "500ms", "30s", "1m30s", "1h".
func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New(`is no duration; write it with its unit, like "30s"`)
	}
	if d < time.Millisecond || d > maxTimeout {
		return 0, fmt.Errorf("is not between 1ms and %s", maxTimeout)
	}
	return d.Truncate(time.Millisecond), nil
}

var plainBalances = []string{"roundrobin", "static-rr", "leastconn", "first", "source", "random", "uri"}

// parseBalance accepts HAProxy's algorithms: those of one word, random(<n>),
// hdr(<name>) and url_param <name>. It also says whether only HTTP has it.
func parseBalance(s string) (balance string, httpOnly bool, err error) {
	if slices.Contains(plainBalances, s) {
		return s, s == "uri", nil
	}
	if n, ok := argument(s, "random"); ok {
		if _, err := parseNumber(n, 1, 100); err == nil {
			return s, false, nil
		}
	}
	if name, ok := argument(s, "hdr"); ok && isToken(name) {
		return s, true, nil
	}
	if name, ok := strings.CutPrefix(s, "url_param "); ok && isToken(name) {
		return s, true, nil
	}
	return "", false, fmt.Errorf("is none of %s, random(<n>), hdr(<name>), url_param <name>", strings.Join(plainBalances, ", "))
}

func argument(s, function string) (string, bool) {
	s, ok := strings.CutPrefix(s, function+"(")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(s, ")")
}

func isToken(s string) bool {
	if s == "" || len(s) > maxHeader {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

// parseLocality accepts the three localities.
func parseLocality(s string) (Locality, error) {
	switch l := Locality(strings.ToLower(s)); l {
	case LocalFirst, Global, LocalOnly:
		return l, nil
	}
	return "", fmt.Errorf("is none of %s, %s, %s", LocalFirst, Global, LocalOnly)
}

// list splits at commas and white space, and drops what is empty.
func list(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}
