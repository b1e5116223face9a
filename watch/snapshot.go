package watch

import (
	"maps"
	"slices"
	"time"
)

// Snapshot is the whole world at one moment: the last good part of every source.
// It is immutable.
type Snapshot struct {
	// Revision grows by one with every change.
	Revision uint64 `json:"revision"`
	// Datacenter is the local one.
	Datacenter string `json:"datacenter"`
	// Parts, sorted by source.
	Parts []*Part `json:"parts,omitempty"`
	// At is when the newest part was received: where the clock of "event to
	// applied" starts.
	At time.Time `json:"at"`
}

// Part is the one of that source, nil if there is none.
func (s *Snapshot) Part(source Source) *Part {
	i, found := slices.BinarySearchFunc(s.Parts, source, func(p *Part, src Source) int {
		return p.Source.Compare(src)
	})
	if !found {
		return nil
	}
	return s.Parts[i]
}

// Datacenters are all that any part names, the local one first, then nearest
// first, then those whose distance is not known, by name.
func (s *Snapshot) Datacenters() []Datacenter {
	known := map[string]time.Duration{}
	for _, p := range s.Parts {
		if p.Datacenter != "" {
			if _, ok := known[p.Datacenter]; !ok {
				known[p.Datacenter] = 0
			}
		}
		for _, dc := range p.Datacenters {
			known[dc.Name] = dc.RTT
		}
	}
	all := make([]Datacenter, 0, len(known))
	for name, rtt := range known {
		all = append(all, Datacenter{Name: name, RTT: rtt})
	}
	slices.SortFunc(all, func(a, b Datacenter) int { return compareDistance(a, b, s.Datacenter) })
	return all
}

func compareDistance(a, b Datacenter, local string) int {
	rank := func(dc Datacenter) int {
		switch {
		case dc.Name == local:
			return 0
		case dc.RTT > 0:
			return 1
		default:
			return 2
		}
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return ra - rb
	}
	if a.RTT != b.RTT {
		if a.RTT < b.RTT {
			return -1
		}
		return 1
	}
	if a.Name < b.Name {
		return -1
	} else if a.Name > b.Name {
		return 1
	}
	return 0
}

// With is the snapshot with the part in the place of its source's former one.
func (s *Snapshot) With(p *Part, at time.Time) *Snapshot {
	parts := slices.DeleteFunc(slices.Clone(s.Parts), func(q *Part) bool { return q.Source == p.Source })
	parts = append(parts, p)
	slices.SortFunc(parts, func(a, b *Part) int { return a.Source.Compare(b.Source) })
	return &Snapshot{Revision: s.Revision + 1, Datacenter: s.Datacenter, Parts: parts, At: at}
}

// Without is the snapshot without the source's part.
func (s *Snapshot) Without(source Source, at time.Time) *Snapshot {
	parts := slices.DeleteFunc(slices.Clone(s.Parts), func(q *Part) bool { return q.Source == source })
	return &Snapshot{Revision: s.Revision + 1, Datacenter: s.Datacenter, Parts: parts, At: at}
}

// Filter is the snapshot with only those services and apps whose name or id the
// function keeps.
func (s *Snapshot) Filter(keep func(name string) bool) *Snapshot {
	filtered := *s
	filtered.Parts = make([]*Part, len(s.Parts))
	for i, p := range s.Parts {
		part := *p
		part.Follow(nil, nil)
		part.Services = maps.Clone(p.Services)
		maps.DeleteFunc(part.Services, func(name string, _ *Service) bool { return !keep(name) })
		part.Apps = maps.Clone(p.Apps)
		maps.DeleteFunc(part.Apps, func(id string, _ *App) bool { return !keep(id) })
		filtered.Parts[i] = &part
	}
	return &filtered
}
