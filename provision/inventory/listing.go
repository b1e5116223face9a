package inventory

import (
	"encoding/json"
	"slices"
)

// Listing is the inventory in the form that ansible-inventory --list prints, and
// that inventory programs print: groups with hosts and children, and _meta with
// all variables of each host, templates unresolved.
type Listing struct {
	Groups   map[string]ListedGroup
	Hostvars map[string]map[string]any
}

// ListedGroup is one group of a [Listing].
type ListedGroup struct {
	Hosts    []string `json:"hosts,omitempty"`
	Children []string `json:"children,omitempty"`
}

// masked stands for a value that is not shown.
const masked = "(hidden)"

// Listing is the inventory as a value for printing. Encrypted values and those
// whose names say that they are secret are hidden; names are given by isSecret,
// nil for none.
func (inv *Inventory) Listing(isSecret func(name string) bool) Listing {
	listing := Listing{Groups: map[string]ListedGroup{}, Hostvars: map[string]map[string]any{}}
	for _, g := range inv.groupOrder {
		var listed ListedGroup
		for _, child := range g.children {
			listed.Children = append(listed.Children, child.name)
		}
		if g.name != "all" {
			for _, h := range g.hosts {
				listed.Hosts = append(listed.Hosts, h.name)
			}
		}
		if len(listed.Hosts)+len(listed.Children) > 0 {
			listing.Groups[g.name] = listed
		}
	}
	for _, h := range inv.hostOrder {
		if len(h.effective) == 0 {
			continue
		}
		vars := make(map[string]any, len(h.effective))
		for name, v := range h.effective {
			vars[name] = Plain(v.Value)
			if isSecret != nil && isSecret(name) && v.Value != nil && !slices.Contains([]any{"", true, false}, plainKey(v.Value)) {
				vars[name] = masked
			}
		}
		listing.Hostvars[h.name] = vars
	}
	return listing
}

// plainKey is the value where it can be compared, else nil.
func plainKey(value any) any {
	switch value.(type) {
	case string, bool:
		return value
	}
	return nil
}

// MarshalJSON is the form of inventory programs.
func (l Listing) MarshalJSON() ([]byte, error) {
	all := make(map[string]any, len(l.Groups)+1)
	for name, g := range l.Groups {
		all[name] = g
	}
	all["_meta"] = map[string]any{"hostvars": l.Hostvars}
	return json.Marshal(all)
}
