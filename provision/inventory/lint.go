package inventory

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// lint finds what Ansible lets pass and nobody means.
func lint(inv *Inventory) []Finding {
	var found []Finding
	add := func(severity Severity, code string, at Position, format string, arguments ...any) {
		found = append(found, Finding{severity, code, at, fmt.Sprintf(format, arguments...)})
	}
	for _, h := range inv.hostOrder {
		if g, ok := inv.groups[h.name]; ok {
			add(Refused, "host-and-group", h.at, "%q is a host and a group (%s); variables would end up with the wrong one", h.name, g.at)
		}
		for i, m := range h.mentions {
			for _, before := range h.mentions[:i] {
				if before.section == m.section && before.group == m.group {
					add(Refused, "listed-twice", m.at, "host %q is listed twice in group %q, the first time by %q (%s)", h.name, m.group.name, before.pattern, before.at)
					break
				}
			}
		}
	}
	found = append(found, undeclared(inv)...)
	for _, g := range inv.groupOrder {
		if g.name != "all" && g.name != "ungrouped" && len(g.Hosts()) == 0 {
			add(Odd, "empty-group", g.at, "group %q has no hosts", g.name)
		}
	}
	reported := map[Position]bool{}
	names := func(vars map[string]Variable) {
		for name, v := range vars {
			if !variableName.MatchString(name) && !reported[v.At] {
				reported[v.At] = true
				add(Odd, "variable-name", v.At, "no template can use a variable called %q; names are letters, digits and _", name)
			}
		}
	}
	for _, g := range inv.groupOrder {
		names(g.vars)
		for _, vars := range g.files {
			names(vars)
		}
	}
	for _, h := range inv.hostOrder {
		names(h.vars)
		for _, vars := range h.files {
			names(vars)
		}
	}
	return found
}

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// undeclared finds hosts that only groups name, in an inventory that declares its
// hosts in a list of their own: before the first section, in [all] or in
// [ungrouped]. Such a list counts if it has at least half of all hosts; a single
// machine above the groups declares nothing.
func undeclared(inv *Inventory) []Finding {
	var declared, others []*Host
	first := Position{}
	for _, h := range inv.hostOrder {
		i := slices.IndexFunc(h.mentions, func(m mention) bool { return m.group.name == "all" || m.group.name == "ungrouped" })
		if i < 0 {
			others = append(others, h)
			continue
		}
		declared = append(declared, h)
		if first.File == "" || h.mentions[i].at.compare(first) < 0 {
			first = h.mentions[i].at
		}
	}
	if len(declared) < len(others) || len(declared) == 0 {
		return nil
	}
	// If no declared host is in any group, the list and the groups have nothing
	// to do with each other.
	if !slices.ContainsFunc(declared, func(h *Host) bool { return h.Groups()[0] != "ungrouped" || len(h.Groups()) > 1 }) {
		return nil
	}
	var found []Finding
	for _, h := range others {
		if len(h.vars) > 0 || slices.ContainsFunc(h.files, func(vars map[string]Variable) bool { return len(vars) > 0 }) {
			continue // it is described elsewhere
		}
		for _, m := range h.mentions {
			message := fmt.Sprintf("group %q names the unknown host %q", m.group.name, h.name)
			if m.pattern != h.name {
				message += fmt.Sprintf(" by %q", m.pattern)
			}
			message += fmt.Sprintf("; the hosts are those listed from %s on", first)
			if near := nearest(h.name, declared); near != "" {
				message += fmt.Sprintf("; did you mean %q?", near)
			}
			found = append(found, Finding{Refused, "unknown-host", m.at, message})
		}
	}
	return found
}

// nearest is the host whose name takes the fewest changes, at most two.
func nearest(name string, hosts []*Host) string {
	best, distance := "", 3
	for _, h := range hosts {
		if d := changes(name, h.name); d < distance {
			best, distance = h.name, d
		}
	}
	return best
}

// Nearest is the candidate whose spelling is at most two changes away from name,
// or "".
func Nearest(name string, candidates []string) string {
	best, distance := "", 3
	for _, c := range candidates {
		if d := changes(name, c); d < distance && d < len(c) {
			best, distance = c, d
		}
	}
	return best
}

// changes is how many insertions, deletions and substitutions lie between two words.
func changes(a, b string) int {
	if max(len(a)-len(b), len(b)-len(a)) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}

// Graph draws the groups and hosts below a group, as ansible-inventory --graph does.
func (inv *Inventory) Graph(group string) (string, error) {
	g, ok := inv.groups[group]
	if !ok {
		var names []string
		for _, g := range inv.groupOrder {
			names = append(names, g.name)
		}
		if near := Nearest(group, names); near != "" {
			return "", fmt.Errorf("there is no group %q; did you mean %q?", group, near)
		}
		return "", fmt.Errorf("there is no group %q", group)
	}
	var b strings.Builder
	draw(&b, g, 0)
	return b.String(), nil
}

func draw(b *strings.Builder, g *Group, depth int) {
	line := func(text string, depth int) {
		b.WriteString(strings.Repeat("  |", depth))
		if depth > 0 {
			b.WriteString("--")
		}
		b.WriteString(text + "\n")
	}
	line("@"+g.name+":", depth)
	for _, child := range g.children {
		draw(b, child, depth+1)
	}
	if g.name == "all" {
		return
	}
	for _, h := range g.hosts {
		line(h.name, depth+1)
	}
}
