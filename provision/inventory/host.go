package inventory

import (
	"maps"
	"slices"
	"strings"
)

// Hosts are all hosts, in the order in which the inventory first names them.
func (inv *Inventory) Hosts() []*Host { return slices.Clone(inv.hostOrder) }

// Host is the host of that name.
func (inv *Inventory) Host(name string) (*Host, bool) {
	h, ok := inv.hosts[name]
	return h, ok
}

// Groups are all groups, "all" and "ungrouped" first, then in the order in which
// the inventory first names them.
func (inv *Inventory) Groups() []*Group { return slices.Clone(inv.groupOrder) }

// Group is the group of that name.
func (inv *Inventory) Group(name string) (*Group, bool) {
	g, ok := inv.groups[name]
	return g, ok
}

// Findings are what is refused or odd, by file and line.
func (inv *Inventory) Findings() []Finding { return slices.Clone(inv.findings) }

// Files are the inventory files and programs that were read; without those of
// group_vars and host_vars.
func (inv *Inventory) Files() []string { return slices.Clone(inv.files) }

// Name is the group's name.
func (g *Group) Name() string { return g.name }

// At is where the group is first declared.
func (g *Group) At() Position { return g.at }

// Children are the groups below it, in order.
func (g *Group) Children() []*Group { return slices.Clone(g.children) }

// Listed are the hosts that the group itself lists, in order.
func (g *Group) Listed() []*Host { return slices.Clone(g.hosts) }

// Hosts are its own hosts, then those of its child groups.
func (g *Group) Hosts() []*Host {
	var hosts []*Host
	seenHosts, seen := map[*Host]bool{}, map[*Group]bool{g: true}
	for level := []*Group{g}; len(level) > 0; {
		var next []*Group
		for _, group := range level {
			for _, h := range group.hosts {
				if !seenHosts[h] {
					seenHosts[h] = true
					hosts = append(hosts, h)
				}
			}
			for _, child := range group.children {
				if !seen[child] {
					seen[child] = true
					next = append(next, child)
				}
			}
		}
		level = next
	}
	return hosts
}

// Var is a variable that the group itself sets, in the inventory or in its
// group_vars; not one that it inherits. It is not resolved.
func (g *Group) Var(name string) (Variable, bool) {
	for _, vars := range slices.Backward(g.files) {
		if v, ok := vars[name]; ok {
			return v, true
		}
	}
	v, ok := g.vars[name]
	return v, ok
}

// Name is the host's name in the inventory.
func (h *Host) Name() string { return h.name }

// At is where the host is first named.
func (h *Host) At() Position { return h.at }

// InGroup is where the host is put into the group itself, not into one of its
// children; ok is false if it is not.
func (h *Host) InGroup(name string) (at Position, ok bool) {
	for _, m := range h.mentions {
		if m.group.name == name {
			return m.at, true
		}
	}
	return Position{}, false
}

// Groups are the names of all groups the host is in, by way of others too,
// without "all", sorted.
func (h *Host) Groups() []string {
	var names []string
	for _, g := range h.ancestry() {
		if g.name != "all" {
			names = append(names, g.name)
		}
	}
	slices.Sort(names)
	return names
}

// In says whether the host is in the group, by way of others too.
func (h *Host) In(group string) bool {
	return group == "all" || slices.Contains(h.Groups(), group)
}

// Own is a variable that is set for this host alone, in the inventory or in its
// host_vars. It is not resolved.
func (h *Host) Own(name string) (Variable, bool) {
	for _, vars := range slices.Backward(h.files) {
		if v, ok := vars[name]; ok {
			return v, true
		}
	}
	v, ok := h.vars[name]
	return v, ok
}

// Vars are all variables of the host, as they are written: templates are not
// resolved, encrypted values not decrypted.
func (h *Host) Vars() map[string]Variable { return maps.Clone(h.effective) }

// merge is the host's variables by Ansible's precedence: those of sources of all
// groups come before those of all group_vars.
func (h *Host) merge(extra map[string]Variable) map[string]Variable {
	all := map[string]Variable{}
	add := func(vars map[string]Variable) { maps.Copy(all, vars) }
	groups := h.ancestry()
	var top *Group
	for i, g := range groups {
		if g.name == "all" {
			top = g
			groups = slices.Delete(slices.Clone(groups), i, i+1)
			break
		}
	}
	addFiles := func(groups ...*Group) {
		for source := range len(h.files) {
			for _, g := range groups {
				if source < len(g.files) {
					add(g.files[source])
				}
			}
		}
	}
	add(top.vars)
	for _, g := range groups {
		add(g.vars)
	}
	addFiles(top)
	addFiles(groups...)
	add(h.vars)
	for _, vars := range h.files {
		add(vars)
	}
	add(extra)
	return all
}

// magic is a variable that Ansible sets itself.
func (h *Host) magic(name string) (any, bool) {
	switch name {
	case "inventory_hostname":
		return h.name, true
	case "inventory_hostname_short":
		if isAddress(h.name) {
			return h.name, true
		}
		short, _, _ := strings.Cut(h.name, ".")
		return short, true
	case "group_names":
		var names []any
		for _, g := range h.Groups() {
			names = append(names, g)
		}
		return names, true
	case "groups":
		all := map[string]any{}
		for _, g := range h.inventory.groupOrder {
			names := []any{}
			for _, member := range g.Hosts() {
				names = append(names, member.name)
			}
			all[g.name] = names
		}
		return all, true
	case "inventory_file":
		return h.source, true
	case "inventory_dir":
		return directoryOf(h.source), true
	}
	return nil, false
}

// Inventory is the inventory that the host belongs to.
func (h *Host) Inventory() *Inventory { return h.inventory }
