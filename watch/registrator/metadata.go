package registrator

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const metadataPrefix = "SERVICE_"

// metadata is what a container says about the service on one of its ports.
type metadata struct {
	// values by lower-case key: "name", "tags", "check_http".
	values map[string]string
	// fromPort has the keys that were given for this very port.
	fromPort map[string]bool
	// origin is the variable or label that a value came from.
	origin map[string]string
}

// parseMetadata reads SERVICE_<key> and SERVICE_<port>_<key> from the container's
// labels and environment for a port that goes by one of the given numbers. The
// environment wins over labels, and what is given for the port over what is
// given for all; of keys that differ only in case the upper-case one wins.
func parseMetadata(c *Container, ports ...string) metadata {
	given := make(map[string]string, len(c.Config.Labels))
	maps.Copy(given, c.Config.Labels)
	for _, kv := range c.Config.Env {
		if key, value, ok := strings.Cut(kv, "="); ok {
			given[key] = value
		}
	}
	names := make([]string, 0, len(given))
	for name := range given {
		if strings.HasPrefix(name, metadataPrefix) && len(name) > len(metadataPrefix) {
			names = append(names, name)
		}
	}
	// Upper case sorts first in ASCII: the first one of a key is the one that counts.
	slices.Sort(names)

	m := metadata{values: map[string]string{}, fromPort: map[string]bool{}, origin: map[string]string{}}
	for _, forPort := range []bool{true, false} {
		for _, name := range names {
			key := strings.ToLower(strings.TrimPrefix(name, metadataPrefix))
			port, rest, isPort := cutPort(key)
			if isPort != forPort || isPort && !slices.Contains(ports, port) {
				continue
			}
			if isPort {
				key = rest
			}
			if _, taken := m.origin[key]; taken {
				continue
			}
			m.values[key], m.origin[key], m.fromPort[key] = given[name], name, isPort
		}
	}
	return m
}

// cutPort splits "80_check_http" into "80" and "check_http".
func cutPort(key string) (port, rest string, ok bool) {
	port, rest, ok = strings.Cut(key, "_")
	if !ok || rest == "" {
		return "", "", false
	}
	if _, err := strconv.Atoi(port); err != nil {
		return "", "", false
	}
	return port, rest, true
}

// splitTags splits at commas that no backslash precedes; empty tags are dropped.
func splitTags(s string) []string {
	var tags []string
	var tag strings.Builder
	flush := func() {
		if tag.Len() > 0 {
			tags = append(tags, tag.String())
			tag.Reset()
		}
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == ',':
			tag.WriteByte(',')
			i++
		case s[i] == ',':
			flush()
		default:
			tag.WriteByte(s[i])
		}
	}
	flush()
	return tags
}

// plain says whether a value is text of one line: valid UTF-8 without control
// characters. Nothing else is passed on, for these values come from people who
// deploy containers and end up in other programs' configuration.
func plain(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// plainWord is plain, not empty, and without spaces.
func plainWord(s string) bool { return s != "" && plain(s) && !strings.ContainsAny(s, " \u00a0") }
