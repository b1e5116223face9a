package inventory

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

var (
	sectionLine = regexp.MustCompile(`^\[([^:\]\s]+)(?::(\w+))?\]\s*(?:#.*)?$`)
	groupLine   = regexp.MustCompile(`^([^:\]\s]+)\s*(?:#.*)?$`)
	lineEnd     = regexp.MustCompile("\r\n|[\n\r\v\f]")
)

// pendingGroup is a group that was used before it was declared.
type pendingGroup struct {
	at      Position
	state   string // children or vars
	parents []*Group
	in      []Position
}

// iniReader reads one file in Ansible's INI form.
type iniReader struct {
	tree    *tree
	file    string
	pending map[string]*pendingGroup
	order   []string // of pending
}

// readINI adds an INI file to the tree.
func (t *tree) readINI(file string, data []byte) error {
	r := &iniReader{tree: t, file: file, pending: map[string]*pendingGroup{}}
	group, state := t.groups["ungrouped"], "hosts"
	seen := map[string]Position{} // sections, by their whole name
	t.sections++
	for i, line := range lineEnd.Split(string(data), -1) {
		at := Position{file, i + 1}
		line = strings.TrimSpace(line)
		if i == 0 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if line == "" || line[0] == '#' || line[0] == ';' {
			continue
		}
		if !utf8.ValidString(line) {
			return errorAt(at, "the line is not valid UTF-8")
		}
		if m := sectionLine.FindStringSubmatch(line); m != nil {
			name := m[1]
			state = m[2]
			if state == "" {
				state = "hosts"
			}
			if state != "hosts" && state != "children" && state != "vars" {
				return errorAt(at, "section [%s:%s]: %q is none of hosts, children, vars", name, state, state)
			}
			whole := name + ":" + state
			if before, ok := seen[whole]; ok {
				t.odd(at, "section-repeated", "section [%s] was there before, in line %d; the two are taken together", strings.TrimSuffix(whole, ":hosts"), before.Line)
			}
			seen[whole] = at
			t.sections++
			var err error
			if group, err = r.section(name, state, at); err != nil {
				return err
			}
			continue
		}
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			return errorAt(at, "%s is no section: write [group], [group:children] or [group:vars], without spaces", line)
		}
		var err error
		switch state {
		case "hosts":
			err = r.hosts(line, group, at)
		case "vars":
			err = r.variable(line, group, at)
		case "children":
			err = r.child(line, group, at)
		}
		if err != nil {
			return err
		}
	}
	return r.unresolved()
}

func (r *iniReader) section(name, state string, at Position) (*Group, error) {
	_, known := r.tree.groups[name]
	p := r.pending[name]
	group := r.tree.group(name, at)
	if group.at.File == "" {
		group.at = at
	}
	if state == "vars" {
		if !known && p == nil {
			r.wait(name, &pendingGroup{at: at, state: "vars"})
		}
		return group, nil
	}
	if p != nil {
		delete(r.pending, name)
		for i, parent := range p.parents {
			if err := r.tree.adopt(parent, group, p.in[i]); err != nil {
				return nil, err
			}
		}
	}
	return group, nil
}

func (r *iniReader) wait(name string, p *pendingGroup) {
	r.pending[name] = p
	r.order = append(r.order, name)
}

// hosts reads a line such as "web[1:3]:2222 user=admin  # ours".
func (r *iniReader) hosts(line string, group *Group, at Position) error {
	tokens, err := words(line, true)
	if err != nil {
		return errorAt(at, "%v: %s", err, line)
	}
	if len(tokens) == 0 {
		return errorAt(at, "the line names no host")
	}
	names, port, err := expandPattern(tokens[0])
	if err != nil {
		return errorAt(at, "host pattern %v", err)
	}
	type assignment struct {
		name  string
		value any
	}
	var assignments []assignment
	for _, token := range tokens[1:] {
		name, value, ok := strings.Cut(token, "=")
		if !ok || name == "" {
			return errorAt(at, "%q is no variable; after a host come name=value, with quotes around values that have spaces", token)
		}
		assignments = append(assignments, assignment{name, literal(value)})
	}
	for _, name := range names {
		host := r.tree.host(name, port, group, mention{at: at, pattern: tokens[0], section: r.tree.sections})
		for _, a := range assignments {
			r.tree.set("host "+name, host.vars, a.name, a.value, at)
		}
	}
	return nil
}

// variable reads a line of a vars section: everything after the first = is the value.
func (r *iniReader) variable(line string, group *Group, at Position) error {
	name, value, ok := strings.Cut(line, "=")
	if !ok {
		return errorAt(at, "%q is no variable; lines of a vars section are name=value", line)
	}
	return r.tree.setGroup(group, strings.TrimSpace(name), literal(strings.TrimSpace(value)), at)
}

func (r *iniReader) child(line string, group *Group, at Position) error {
	m := groupLine.FindStringSubmatch(line)
	if m == nil {
		return errorAt(at, "%q is no name of a group; lines of a children section are groups", line)
	}
	if child, ok := r.tree.groups[m[1]]; ok && r.pending[m[1]] == nil {
		return r.tree.adopt(group, child, at)
	} else if ok && r.pending[m[1]].state == "vars" {
		return r.tree.adopt(group, child, at)
	}
	p := r.pending[m[1]]
	if p == nil {
		p = &pendingGroup{at: at, state: "children"}
		r.wait(m[1], p)
	}
	p.parents = append(p.parents, group)
	p.in = append(p.in, at)
	return nil
}

func (r *iniReader) unresolved() error {
	for _, name := range r.order {
		switch p := r.pending[name]; {
		case p == nil:
		case p.state == "vars":
			return errorAt(p.at, "section [%s:vars]: there is no group %q", name, name)
		default:
			return errorAt(p.in[len(p.in)-1], "section [%s:children]: there is no group %q; declare it with [%s]", p.parents[len(p.parents)-1].name, name, name)
		}
	}
	return nil
}
