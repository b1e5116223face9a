package registrator

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/mi-lb/mi-lb/watch"
)

// Desired is what all containers together ask for.
type Desired struct {
	// Services by id.
	Services map[string]*Service
	// Keep holds the short ids of containers that ended with an error and whose
	// services stay as they are.
	Keep     map[string]bool
	Findings []watch.Finding
}

// Merge settles what several containers claim: an id belongs to the container
// that was created first (then to that with the lower id), so that a newcomer
// never takes a service from one that has it. The other gets it when the first
// is gone. The containers are given by their short ids; the order of a map does
// not matter.
func Merge(containers map[string]Description) *Desired {
	d := &Desired{Services: map[string]*Service{}, Keep: map[string]bool{}}
	for id, c := range containers {
		if c.Keep {
			d.Keep[id] = true
		}
		d.Findings = append(d.Findings, c.Findings...)
		for _, s := range c.Services {
			first, taken := d.Services[s.ID()]
			if !taken {
				d.Services[s.ID()] = s
				continue
			}
			if before(s, first) {
				first, s = s, first
			}
			d.Services[s.ID()] = first
			d.Findings = append(d.Findings, watch.Finding{
				Code: "id-taken", Source: "docker/" + s.Container, Service: watch.Printable(s.Registration.Name), Key: "SERVICE_ID",
				Message: fmt.Sprintf("it claims the service id %s, which container %s has", quote(s.ID()), first.Container),
				Instead: "it is not registered while the other runs; give each container its own id, or none",
			})
		}
	}
	slices.SortFunc(d.Findings, watch.Finding.Compare)
	return d
}

func before(a, b *Service) bool {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.Container, b.Container)) < 0
}
