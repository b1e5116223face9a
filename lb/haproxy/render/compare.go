package render

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

var errNoAddress = errors.New("a server line has no address")

// Change is how one set of files differs from another, as what HAProxy can be told
// at run time. It works on any configuration, however it was made.
type Change struct {
	// Reload says why nothing less will do; "" if Servers and Maps are all there is.
	Reload  string
	Servers []ServerChange
	Maps    []MapChange
	// Files are the names of the files that differ, sorted; nil if none does.
	Files []string
}

// ServerChange is about one server of a backend that stays.
type ServerChange struct {
	Backend, Server string
	// Add is what follows `add server `; "" if the server is there already.
	Add string
	// Remove says that the server is gone.
	Remove bool
	// Was is the zero Server for one that is added, Is for one that is removed.
	Was, Is Server
}

// Server is what can be changed of a server at run time.
type Server struct {
	Address netip.AddrPort
	// Weight is 1 unless the line says another.
	Weight int
	// MaxConn is 0 for none.
	MaxConn  int
	Disabled bool
	// Check says whether the server is checked.
	Check bool
	// rest is everything else: where it differs only a reload will do.
	rest string
}

// MapChange is about the rows of one map.
type MapChange struct {
	// File is the map's name among the files.
	File string
	// Set are rows that are new or have another value, Delete the keys that are gone.
	Set    []Row
	Delete []string
}

// Compare says how to get from the old files to the new.
func Compare(old, new Files) Change {
	var c Change
	for _, name := range slices.Sorted(maps.Keys(union(old, new))) {
		before, was := old[name]
		after, is := new[name]
		if was == is && bytes.Equal(before, after) {
			continue
		}
		c.Files = append(c.Files, name)
		switch {
		case !is:
			c.because("file %s is gone", name)
		case !was:
			c.because("file %s is new", name)
		case name == ConfigFile:
			c.config(before, after)
		case strings.HasSuffix(name, ".map"):
			c.maps(name, before, after, new[ConfigFile])
		default:
			c.because("file %s changed", name)
		}
	}
	if c.Reload != "" {
		c.Servers, c.Maps = nil, nil
	}
	return c
}

func union(a, b Files) Files {
	u := maps.Clone(a)
	if u == nil {
		u = Files{}
	}
	maps.Copy(u, b)
	return u
}

// because notes why a reload is needed; the first reason is kept.
func (c *Change) because(format string, args ...any) {
	if c.Reload == "" {
		c.Reload = fmt.Sprintf(format, args...)
	}
}

func (c *Change) config(before, after []byte) {
	old, new := split(before), split(after)
	if reason := sectionsDiffer(old, new); reason != "" {
		c.because("%s", reason)
		return
	}
	for i := range new {
		c.section(old[i], new[i])
		if c.Reload != "" {
			return
		}
	}
}

func sectionsDiffer(old, new []*section) string {
	headers := func(all []*section) []string {
		var list []string
		for _, s := range all {
			list = append(list, s.header)
		}
		return list
	}
	was, is := headers(old), headers(new)
	if slices.Equal(was, is) {
		return ""
	}
	before := map[string]bool{}
	for _, h := range was {
		before[h] = true
	}
	for _, h := range is {
		if !before[h] {
			return h + " is new"
		}
		delete(before, h)
	}
	for _, h := range was {
		if before[h] {
			return h + " is gone"
		}
	}
	return "the order of sections changed"
}

func (c *Change) section(old, new *section) {
	if !slices.Equal(old.lines, new.lines) {
		c.because("%s: %s", new.header, linesDiffer(old.lines, new.lines))
		return
	}
	if slices.EqualFunc(old.servers, new.servers, func(a, b serverLine) bool { return a.text == b.text }) {
		return
	}
	if old.opaque || new.opaque {
		c.because("%s: a server changed under a condition", new.header)
		return
	}
	was, err := byName(old)
	if err != nil {
		c.because("%s: %v", old.header, err)
		return
	}
	is, err := byName(new)
	if err != nil {
		c.because("%s: %v", new.header, err)
		return
	}
	for _, line := range new.servers {
		before, known := was[line.name]
		if known && before.text == line.text && slices.Equal(before.defaults, line.defaults) {
			continue
		}
		if !known {
			c.added(new.name, line)
		} else {
			c.changed(new.name, before, line)
		}
	}
	for _, line := range old.servers {
		if _, stays := is[line.name]; !stays {
			server, err := line.server()
			if err != nil {
				// It only goes; what it was does not matter.
				server = Server{}
			}
			c.Servers = append(c.Servers, ServerChange{Backend: new.name, Server: line.name, Remove: true, Was: server})
		}
	}
}

func linesDiffer(old, new []string) string {
	for i, line := range new {
		if i >= len(old) || old[i] != line {
			return fmt.Sprintf("line %q is new or moved", line)
		}
	}
	return fmt.Sprintf("line %q is gone", old[len(new)])
}

func byName(s *section) (map[string]serverLine, error) {
	servers := make(map[string]serverLine, len(s.servers))
	for _, line := range s.servers {
		if _, twice := servers[line.name]; twice {
			return nil, fmt.Errorf("server %s is there twice", line.name)
		}
		servers[line.name] = line
	}
	return servers, nil
}

func (c *Change) added(backend string, line serverLine) {
	server, err := line.server()
	if err != nil {
		c.because("server %s/%s: %v", backend, line.name, err)
		return
	}
	address, options, err := line.words()
	if err != nil {
		c.because("server %s/%s: %v", backend, line.name, err)
		return
	}
	add, err := addServer(backend, append([]string{line.name, address}, options...))
	if err != nil {
		c.because("server %s/%s: %v", backend, line.name, err)
		return
	}
	c.Servers = append(c.Servers, ServerChange{Backend: backend, Server: line.name, Add: add, Is: server})
}

func (c *Change) changed(backend string, old, new serverLine) {
	was, err := old.server()
	if err != nil {
		c.because("server %s/%s: %v", backend, old.name, err)
		return
	}
	is, err := new.server()
	switch {
	case err != nil:
		c.because("server %s/%s: %v", backend, new.name, err)
	case was.rest != is.rest:
		c.because("server %s/%s: options changed from %q to %q", backend, new.name, was.rest, is.rest)
	case was != is:
		c.Servers = append(c.Servers, ServerChange{Backend: backend, Server: new.name, Was: was, Is: is})
	}
}

// server reads the line's options. Of one given twice the last holds, as in HAProxy.
func (s serverLine) server() (Server, error) {
	address, options, err := s.words()
	if err != nil {
		return Server{}, err
	}
	server := Server{Weight: 1}
	if parsed, err := netip.ParseAddrPort(address); err == nil {
		server.Address = parsed
	} else {
		// A name, a socket, a port that is relative: not to be changed at run time.
		server.rest = address
	}
	number := func(i int) (int, error) {
		if i+1 >= len(options) {
			return 0, fmt.Errorf("option %s has no value", options[i])
		}
		n, err := strconv.Atoi(options[i+1])
		if err != nil {
			return 0, fmt.Errorf("option %s has the value %q", options[i], options[i+1])
		}
		return n, nil
	}
	for i := 0; i < len(options) && err == nil; i++ {
		switch options[i] {
		case "weight":
			server.Weight, err = number(i)
			i++
		case "maxconn":
			server.MaxConn, err = number(i)
			i++
		case "disabled":
			server.Disabled = true
		case "enabled":
			server.Disabled = false
		default:
			switch options[i] {
			case "check":
				server.Check = true
			case "no-check":
				server.Check = false
			}
			server.rest += " " + options[i]
		}
	}
	return server, err
}

// ordered are the kinds of maps whose first matching row wins: a row added at run
// time comes last, wherever it stands in the file.
var ordered = [][]byte{[]byte("map_sub("), []byte("map_dir("), []byte("map_dom("), []byte("map_end("), []byte("map_reg("), []byte("map_regm(")}

func (c *Change) maps(name string, before, after, config []byte) {
	old, err := parseMap(before)
	if err != nil {
		c.because("%s: %v", name, err)
		return
	}
	new, err := parseMap(after)
	if err != nil {
		c.because("%s: %v", name, err)
		return
	}
	change := MapChange{File: name}
	added := false
	for _, row := range new.rows {
		value, known := old.values[row.Key]
		if !known || value != row.Value {
			change.Set = append(change.Set, row)
			added = added || !known
		}
	}
	for _, row := range old.rows {
		if _, stays := new.values[row.Key]; !stays {
			change.Delete = append(change.Delete, row.Key)
		}
	}
	if added && slices.ContainsFunc(ordered, func(kind []byte) bool { return bytes.Contains(config, kind) }) {
		c.because("%s: a row is new, and the order of rows may matter", name)
		return
	}
	if len(change.Set)+len(change.Delete) > 0 {
		c.Maps = append(c.Maps, change)
	}
}

// MapRows are the rows of a map file; none if it is not one.
func MapRows(content []byte) []Row {
	m, err := parseMap(content)
	if err != nil {
		return nil
	}
	return m.rows
}

type parsedMap struct {
	rows   []Row
	values map[string]string
}

func parseMap(content []byte) (parsedMap, error) {
	m := parsedMap{values: map[string]string{}}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key := firstWord(line)
		row := Row{Key: key, Value: strings.TrimSpace(line[len(key):])}
		if _, twice := m.values[key]; twice {
			return parsedMap{}, fmt.Errorf("key %q is there twice", key)
		}
		m.values[key] = row.Value
		m.rows = append(m.rows, row)
	}
	return m, nil
}
