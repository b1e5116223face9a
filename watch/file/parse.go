package file

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/mi-lb/mi-lb/watch"
)

// content is a file that was read without an error.
type content struct {
	datacenter string
	services   []service
}

type service struct {
	name, datacenter string
	instances        []instance
}

// instance is one whose host is not resolved yet.
type instance struct {
	watch.Instance
	host string
	port uint16
}

// Limits of a file. Aliases can make a small file mean a large one.
const (
	mostBytes     = 16 << 20
	mostInstances = 100_000
)

// problems collects what is wrong with a file, each with its line.
type problems struct {
	path string
	all  []error
}

func (p *problems) add(n *yaml.Node, format string, args ...any) {
	if len(p.all) < 20 {
		p.all = append(p.all, fmt.Errorf("%s:%d: %s", p.path, n.Line, fmt.Sprintf(format, args...)))
	}
}

// parse reads a file's bytes. The error names path and line of everything that
// is wrong, up to twenty things.
func parse(path string, in []byte) (*content, error) {
	if len(in) > mostBytes {
		return nil, fmt.Errorf("%s: larger than %d MB", path, mostBytes>>20)
	}
	if strings.TrimSpace(string(in)) == "" {
		return nil, fmt.Errorf("%s: the file is empty; to have no services, write \"services: []\"", path)
	}
	decoder := yaml.NewDecoder(strings.NewReader(string(in)))
	var doc yaml.Node
	switch err := decoder.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: no content; to have no services, write \"services: []\"", path)
	case err != nil:
		return nil, syntaxError(path, err)
	}
	p := &problems{path: path}
	var more yaml.Node
	if err := decoder.Decode(&more); err == nil {
		p.add(&more, "a second document; only one is read")
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(path, err)
	}
	c := &content{}
	root := p.mapping(doc.Content[0], "the file", "datacenter", "services")
	if n := root["datacenter"]; n != nil {
		c.datacenter = p.text(n, "datacenter")
	}
	list := root["services"]
	if list == nil {
		p.add(doc.Content[0], "no key %q; to have no services, write \"services: []\"", "services")
		return nil, errors.Join(p.all...)
	}
	names := map[string]int{}
	total := 0
	for _, n := range p.sequence(list, "services") {
		s := p.service(n, c.datacenter)
		if s.name == "" {
			continue
		}
		key := s.datacenter + "\x00" + s.name
		if first, twice := names[key]; twice {
			p.add(n, "service %q is already on line %d", watch.Printable(s.name), first)
		}
		names[key] = n.Line
		if total += len(s.instances); total > mostInstances {
			p.add(n, "more than %d instances", mostInstances)
			break
		}
		c.services = append(c.services, s)
	}
	if len(p.all) > 0 {
		return nil, errors.Join(p.all...)
	}
	return c, nil
}

// syntaxError puts the library's "yaml: line 3: …" in the form of the others.
func syntaxError(path string, err error) error {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if line, message, ok := strings.Cut(rest, ": "); ok {
			return fmt.Errorf("%s:%s: %s", path, line, message)
		}
	}
	return fmt.Errorf("%s: %s", path, text)
}

func (p *problems) service(n *yaml.Node, datacenter string) service {
	m := p.mapping(n, "a service", "name", "datacenter", "tags", "meta", "instances")
	s := service{datacenter: datacenter}
	if m == nil {
		return s
	}
	if m["name"] == nil {
		p.add(n, "a service needs a name")
		return s
	}
	s.name = p.text(m["name"], "name")
	if m["datacenter"] != nil {
		s.datacenter = p.text(m["datacenter"], "datacenter")
	}
	tags := p.texts(m["tags"], "tags")
	meta := p.textMap(m["meta"], "meta")
	if m["instances"] == nil {
		p.add(n, "service %q has no key %q; for none, write \"instances: []\"", watch.Printable(s.name), "instances")
		return s
	}
	ids := map[string]int{}
	for _, in := range p.sequence(m["instances"], "instances") {
		i, ok := p.instance(in, s.name, tags, meta)
		if !ok {
			continue
		}
		if len(s.instances) >= mostInstances {
			p.add(in, "more than %d instances", mostInstances)
			break
		}
		key := i.Node + "\x00" + i.ID
		if first, twice := ids[key]; twice {
			p.add(in, "the same instance is already on line %d; give it another id", first)
		}
		ids[key] = in.Line
		s.instances = append(s.instances, i)
	}
	slices.SortFunc(s.instances, func(a, b instance) int {
		return strings.Compare(a.Node+"\x00"+a.ID, b.Node+"\x00"+b.ID)
	})
	return s
}

func (p *problems) instance(n *yaml.Node, name string, tags []string, meta map[string]string) (instance, bool) {
	m := p.mapping(n, "an instance", "address", "weight", "health", "node", "id", "tags", "meta")
	if m == nil {
		return instance{}, false
	}
	i := instance{Instance: watch.Instance{Weights: watch.Weights{Passing: 1, Warning: 1}, Tags: tags, Meta: meta}}
	if m["address"] == nil {
		p.add(n, "an instance needs an address, like 10.0.0.5:8080")
		return i, false
	}
	address := p.text(m["address"], "address")
	host, port, err := net.SplitHostPort(address)
	number, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || number == 0 || !isHost(host) {
		p.add(m["address"], "address %q must be like 10.0.0.5:8080, [fd00::5]:8080 or db.example.com:8080", watch.Printable(address))
		return i, false
	}
	i.host, i.port = host, uint16(number)
	i.Node, i.ID = host, name+":"+address
	if m["node"] != nil {
		i.Node = p.text(m["node"], "node")
	}
	if m["id"] != nil {
		i.ID = p.text(m["id"], "id")
	}
	if w := m["weight"]; w != nil {
		weight, err := strconv.Atoi(p.text(w, "weight"))
		if err != nil || weight < 0 || weight > 65535 {
			p.add(w, "weight must be a number from 0 to 65535")
		}
		i.Weights = watch.Weights{Passing: weight, Warning: weight}
	}
	if h := m["health"]; h != nil {
		word := p.text(h, "health")
		_ = i.Health.UnmarshalText([]byte(word))
		if i.Health.String() != word {
			p.add(h, "health must be passing, warning, maintenance, critical or unknown, not %q", watch.Printable(word))
		}
		if i.Health > watch.HealthPassing {
			i.Reason = "written in " + p.path
		}
	}
	if m["tags"] != nil {
		own := p.texts(m["tags"], "tags")
		i.Tags = slices.Clone(tags)
		for _, tag := range own {
			if !slices.Contains(i.Tags, tag) {
				i.Tags = append(i.Tags, tag)
			}
		}
	}
	if m["meta"] != nil {
		i.Meta = maps.Clone(meta)
		if i.Meta == nil {
			i.Meta = map[string]string{}
		}
		maps.Copy(i.Meta, p.textMap(m["meta"], "meta"))
	}
	return i, true
}

// isHost says whether it is an address or looks like a host name.
func isHost(s string) bool {
	if addr, err := netip.ParseAddr(s); err == nil {
		return addr.Zone() == ""
	}
	if s == "" || len(s) > 253 || strings.Contains(s, ":") {
		return false
	}
	for label := range strings.SplitSeq(strings.TrimSuffix(s, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_') {
				return false
			}
		}
	}
	return true
}

// follow is what an alias stands for.
func follow(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// mapping is the values by key; nil if it is no mapping. Keys other than those
// named are problems.
func (p *problems) mapping(n *yaml.Node, what string, keys ...string) map[string]*yaml.Node {
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		p.add(n, "%s must be a mapping with the keys %s", what, strings.Join(keys, ", "))
		return nil
	}
	m := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		switch {
		case key.Kind != yaml.ScalarNode || !slices.Contains(keys, key.Value):
			p.add(key, "unknown key %q in %s; it knows %s", watch.Printable(key.Value), what, strings.Join(keys, ", "))
		case m[key.Value] != nil:
			p.add(key, "key %q twice", key.Value)
		default:
			m[key.Value] = n.Content[i+1]
		}
	}
	return m
}

func (p *problems) sequence(n *yaml.Node, key string) []*yaml.Node {
	n = follow(n)
	if n.Kind != yaml.SequenceNode {
		p.add(n, "%s must be a list", key)
		return nil
	}
	return n.Content
}

// text is a scalar that is not empty, as it is written.
func (p *problems) text(n *yaml.Node, key string) string {
	n = follow(n)
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" || n.Tag == "!!binary" {
		p.add(n, "%s must be a single value", key)
		return ""
	}
	if n.Value == "" {
		p.add(n, "%s must not be empty", key)
	}
	return n.Value
}

func (p *problems) texts(n *yaml.Node, key string) []string {
	if n == nil {
		return nil
	}
	var all []string
	for _, e := range p.sequence(n, key) {
		if tag := p.text(e, key); !slices.Contains(all, tag) {
			all = append(all, tag)
		}
	}
	return all
}

// textMap is a mapping of single values; empty ones may be.
func (p *problems) textMap(n *yaml.Node, key string) map[string]string {
	if n == nil {
		return nil
	}
	n = follow(n)
	if n.Kind != yaml.MappingNode {
		p.add(n, "%s must be a mapping", key)
		return nil
	}
	m := map[string]string{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := follow(n.Content[i]), follow(n.Content[i+1])
		if k.Kind != yaml.ScalarNode || k.Value == "" || v.Kind != yaml.ScalarNode || v.Tag == "!!null" || v.Tag == "!!binary" {
			p.add(n.Content[i], "%s must hold single values", key)
			continue
		}
		if _, twice := m[k.Value]; twice {
			p.add(n.Content[i], "key %q twice", watch.Printable(k.Value))
		}
		m[k.Value] = v.Value
	}
	return m
}
