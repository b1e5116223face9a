package inventory

import (
	"fmt"
	"slices"
	"strings"
)

// Group is a set of hosts, of its own and of its child groups.
type Group struct {
	name     string
	at       Position
	hosts    []*Host
	children []*Group
	parents  []*Group
	vars     map[string]Variable // from inventory sources
	priority int
	// depth is the length of the longest way from the group "all".
	depth int
	// files are the variables from group_vars, one mapping per source.
	files []map[string]Variable
}

// Host is a machine of the inventory.
type Host struct {
	name      string
	at        Position
	groups    []*Group // those that list it
	vars      map[string]Variable
	files     []map[string]Variable
	mentions  []mention
	source    string
	effective map[string]Variable
	inventory *Inventory
}

// mention is one place that puts a host into a group.
type mention struct {
	at      Position
	group   *Group
	pattern string
	section int // different for each section of each file
}

// tree is an inventory while it is read.
type tree struct {
	groups     map[string]*Group
	groupOrder []*Group
	hosts      map[string]*Host
	hostOrder  []*Host
	findings   []Finding
	sections   int
	source     string // the source being read
	keyring    *Keyring
}

func newTree(keyring *Keyring) *tree {
	t := &tree{groups: map[string]*Group{}, hosts: map[string]*Host{}, keyring: keyring}
	all, ungrouped := t.group("all", Position{}), t.group("ungrouped", Position{})
	all.children, ungrouped.parents = []*Group{ungrouped}, []*Group{all}
	return t
}

func (t *tree) odd(at Position, code, format string, arguments ...any) {
	t.findings = append(t.findings, Finding{Odd, code, at, fmt.Sprintf(format, arguments...)})
}

func (t *tree) refuse(at Position, code, format string, arguments ...any) {
	t.findings = append(t.findings, Finding{Refused, code, at, fmt.Sprintf(format, arguments...)})
}

// group is the group of that name, made if there is none.
func (t *tree) group(name string, at Position) *Group {
	g := t.groups[name]
	if g == nil {
		g = &Group{name: name, at: at, vars: map[string]Variable{}, priority: 1}
		t.groups[name] = g
		t.groupOrder = append(t.groupOrder, g)
	}
	return g
}

// host puts a host into a group.
func (t *tree) host(name string, port int, group *Group, m mention) *Host {
	h := t.hosts[name]
	if h == nil {
		h = &Host{name: name, at: m.at, vars: map[string]Variable{}, source: t.source}
		if port != 0 {
			h.vars["ansible_port"] = Variable{int64(port), m.at}
		}
		t.hosts[name] = h
		t.hostOrder = append(t.hostOrder, h)
	} else if have, ok := h.vars["ansible_port"]; port != 0 && (!ok || have.Value != any(int64(port))) {
		t.odd(m.at, "port-ignored", "the port %d of host %q is ignored, as Ansible does: only the first mention of a host (%s) can have one; write ansible_port=%d", port, name, h.at, port)
	}
	if !slices.Contains(group.hosts, h) {
		group.hosts = append(group.hosts, h)
		h.groups = append(h.groups, group)
	}
	m.group = group
	h.mentions = append(h.mentions, m)
	return h
}

// set sets a variable of a group or host, remembering what is odd about it.
func (t *tree) set(owner string, vars map[string]Variable, name string, value any, at Position) {
	if before, ok := vars[name]; ok && before.At.File == at.File && before.At != at && !same(before.Value, value) {
		t.odd(at, "set-twice", "%s of %s was set before, in line %d, to something else; the last one counts", name, owner, before.At.Line)
	}
	vars[name] = Variable{value, at}
}

func same(a, b any) bool { return fmt.Sprintf("%T %v", a, a) == fmt.Sprintf("%T %v", b, b) }

func (t *tree) setGroup(g *Group, name string, value any, at Position) error {
	if name == "ansible_group_priority" {
		text, _ := Text(value)
		priority, ok := literal(text).(int64)
		if !ok {
			return errorAt(at, "ansible_group_priority of group %q is %q; it must be a whole number", g.name, text)
		}
		g.priority = int(priority)
		return nil
	}
	t.set("group "+g.name, g.vars, name, value, at)
	return nil
}

// adopt makes child a child of parent.
func (t *tree) adopt(parent, child *Group, at Position) error {
	if parent == child {
		return errorAt(at, "group %q cannot be its own child", parent.name)
	}
	if slices.Contains(parent.children, child) {
		return nil
	}
	if child.name == "all" || isAncestor(child, parent) {
		return errorAt(at, "group %q as a child of %q closes a circle", child.name, parent.name)
	}
	parent.children = append(parent.children, child)
	child.parents = append(child.parents, parent)
	return nil
}

func isAncestor(ancestor, of *Group) bool {
	seen := map[*Group]bool{}
	var above func(g *Group) bool
	above = func(g *Group) bool {
		return slices.ContainsFunc(g.parents, func(p *Group) bool {
			if p == ancestor {
				return true
			}
			if seen[p] {
				return false
			}
			seen[p] = true
			return above(p)
		})
	}
	return above(of)
}

// settle puts every group below "all", every host without a group into
// "ungrouped", and measures depths.
func (t *tree) settle() {
	all, ungrouped := t.groups["all"], t.groups["ungrouped"]
	for _, g := range t.groupOrder {
		if g != all && len(g.parents) == 0 {
			all.children = append(all.children, g)
			g.parents = append(g.parents, all)
		}
	}
	for _, h := range t.hostOrder {
		grouped := slices.ContainsFunc(h.groups, func(g *Group) bool { return g != all && g != ungrouped })
		switch listed := slices.Contains(h.groups, ungrouped); {
		case grouped && listed:
			h.groups = slices.DeleteFunc(slices.Clone(h.groups), func(g *Group) bool { return g == ungrouped })
			ungrouped.hosts = slices.DeleteFunc(slices.Clone(ungrouped.hosts), func(o *Host) bool { return o == h })
		case !grouped && !listed:
			h.groups = append(h.groups, ungrouped)
			ungrouped.hosts = append(ungrouped.hosts, h)
		}
	}
	done := map[*Group]bool{}
	for _, g := range t.groupOrder {
		measure(g, done)
	}
}

func measure(g *Group, done map[*Group]bool) int {
	if !done[g] {
		done[g] = true
		for _, p := range g.parents {
			g.depth = max(g.depth, measure(p, done)+1)
		}
	}
	return g.depth
}

// ancestry is all groups that a host is in, by way of others too, in the order
// in which their variables override each other.
func (h *Host) ancestry() []*Group {
	var all []*Group
	var add func(g *Group)
	add = func(g *Group) {
		if slices.Contains(all, g) {
			return
		}
		all = append(all, g)
		for _, p := range g.parents {
			add(p)
		}
	}
	for _, g := range h.groups {
		add(g)
	}
	slices.SortFunc(all, func(a, b *Group) int {
		switch {
		case a.depth != b.depth:
			return a.depth - b.depth
		case a.priority != b.priority:
			return a.priority - b.priority
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}
