package render

import (
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
)

// section is a section of a configuration, with its server lines apart.
type section struct {
	// header is its first line: kind, name and what follows.
	header string
	kind   string
	name   string
	// lines are the others, without comments, blank lines and server lines.
	lines []string
	// servers are its server lines, in order.
	servers []serverLine
	// opaque says that its lines depend on conditions: nothing is known about them.
	opaque bool
}

type serverLine struct {
	// text is the line, without blanks around it.
	text string
	name string
	// defaults are the default-server lines that hold for it.
	defaults []string
}

var sectionKinds = map[string]bool{
	"acme": true, "backend": true, "cache": true, "crt-store": true, "defaults": true, "fcgi-app": true, "frontend": true,
	"global": true, "http-errors": true, "listen": true, "log-forward": true, "log-profile": true, "mailers": true,
	"peers": true, "program": true, "resolvers": true, "ring": true, "traces": true, "userlist": true,
}

// split cuts a configuration into sections. Server lines of backend and listen
// sections are told apart by their first word; nothing else is interpreted.
func split(config []byte) []*section {
	var all []*section
	current := &section{}
	// anonymous is the last defaults section, named those with a name.
	var anonymous []string
	named := map[string][]string{}
	var inherited []string
	finish := func() {
		if current.kind == "defaults" {
			own := defaultServers(current.lines)
			anonymous = own
			named[current.name] = own
		}
	}
	conditions := 0
	for line := range strings.Lines(string(config)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		word := firstWord(line)
		if sectionKinds[word] {
			finish()
			current = &section{header: line, kind: word, opaque: conditions > 0}
			fields := strings.Fields(line)
			if len(fields) > 1 {
				current.name = fields[1]
			}
			inherited = anonymous
			if len(fields) > 3 && fields[2] == "from" {
				inherited = named[fields[3]]
			}
			all = append(all, current)
			continue
		}
		switch word {
		case ".if":
			conditions++
		case ".endif":
			conditions--
		}
		if word[0] == '.' {
			current.opaque = true
		}
		if word == "server" && (current.kind == "backend" || current.kind == "listen") {
			current.servers = append(current.servers, serverLine{
				text:     line,
				name:     firstWord(strings.TrimSpace(line[len(word):])),
				defaults: inherited,
			})
			continue
		}
		if word == "default-server" {
			inherited = append(inherited[:len(inherited):len(inherited)], line)
		}
		current.lines = append(current.lines, line)
	}
	finish()
	return all
}

func defaultServers(lines []string) []string {
	var found []string
	for _, line := range lines {
		if firstWord(line) == "default-server" {
			found = append(found, line)
		}
	}
	return found
}

func firstWord(line string) string {
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		return line[:i]
	}
	return line
}

// words are those of the server line after its name: the address, then the options
// of default-server, then its own.
func (s serverLine) words() (address string, options []string, err error) {
	for _, line := range s.defaults {
		words, err := encode.Words(line)
		if err != nil {
			return "", nil, err
		}
		options = append(options, words[1:]...)
	}
	words, err := encode.Words(s.text)
	if err != nil {
		return "", nil, err
	}
	if len(words) < 3 {
		return "", nil, errNoAddress
	}
	return words[2], append(options, words[3:]...), nil
}
