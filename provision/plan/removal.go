package plan

import (
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// Removal is what is taken off a machine to remove a component.
type Removal struct {
	Node      string   `json:"node"`
	Component string   `json:"component"`
	Units     []string `json:"units"`    // stopped
	Masked    []string `json:"masked"`   // may run again
	Files     []string `json:"files"`    // with those of units
	Programs  []string `json:"programs"` // files or trees
	// Directories are those with data; only where they are to be purged.
	Directories []string `json:"directories,omitempty"`
	Stamps      []string `json:"-"`
}

// IsEmpty says whether there is nothing to remove.
func (r Removal) IsEmpty() bool {
	return len(r.Units)+len(r.Masked)+len(r.Files)+len(r.Programs)+len(r.Directories)+len(r.Stamps) == 0
}

// kept are directories that are never removed as a whole, and whatever is above them.
var kept = []string{"/etc/mi-lb", "/var/lib/mi-lb", "/var/log", "/etc/systemd/system", "/usr/local/bin", "/usr/local/sbin", "/etc/docker", "/opt", "/srv", "/home", "/root", "/run"}

// RemovalOf is what is to be taken off a machine so that a component is gone: what runs
// have noted, and what the part says, which may be nil. What other parts want stays.
// Packages and users stay always.
func RemovalOf(component string, part *desired.Part, others []*desired.Part, found *facts.Facts, purge bool) Removal {
	r := Removal{Node: found.Node, Component: component}
	m := noted(found, component)
	if m.Files == nil {
		return r
	}
	stay := map[string]bool{}
	for _, p := range others {
		if p.Component == component {
			continue
		}
		other := manifestOf(p)
		for file := range other.Files {
			stay[file] = true
		}
		for _, list := range [][]string{other.Units, other.Programs, other.Directories} {
			for _, x := range list {
				stay[x] = true
			}
		}
	}
	wanted := func(list []string) []string {
		return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return stay[x] })
	}
	r.Units = wanted(m.Units)
	r.Files = wanted(slices.Sorted(maps.Keys(m.Files)))
	r.Programs = wanted(m.Programs)
	if part != nil {
		for _, u := range part.Units {
			switch {
			case u.State == desired.Masked:
				r.Masked = append(r.Masked, u.Name)
			case u.State == desired.Running && u.Content == "" && !slices.Contains(r.Units, u.Name):
				r.Units = append(r.Units, u.Name)
			}
		}
		for _, f := range part.Files {
			if f.Once && purge {
				r.Files = append(r.Files, f.Path)
			}
		}
	}
	if purge {
		r.Directories = slices.DeleteFunc(wanted(m.Directories), func(d string) bool {
			return strings.Count(path.Clean(d), "/") < 2 || slices.ContainsFunc(kept, func(k string) bool { return k == path.Clean(d) || strings.HasPrefix(k, path.Clean(d)+"/") })
		})
	}
	r.Stamps = append(r.Stamps, ManifestStamp(component))
	for _, u := range r.Units {
		r.Stamps = append(r.Stamps, RestartStamp(u), ReloadStamp(u))
	}
	for _, x := range r.Programs {
		r.Stamps = append(r.Stamps, "program."+pathID(x))
	}
	for _, x := range r.Files {
		r.Stamps = append(r.Stamps, "then."+pathID(x))
	}
	return r
}
