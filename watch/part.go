package watch

import (
	"cmp"
	"net/netip"
	"time"
	"weak"
)

// Kind says what sort of registry a source reads.
type Kind string

const (
	Consul   Kind = "consul"
	Marathon Kind = "marathon"
	File     Kind = "file"
)

// Source names where a part of the world comes from.
type Source struct {
	Kind Kind `json:"kind"`
	// Name is unique within the kind: a Consul datacenter, the host:port of a
	// Marathon cluster's first member, the path of a file.
	Name string `json:"name"`
}

// String is the source as it is printed and used as a metric label: "consul/dc1".
func (s Source) String() string { return string(s.Kind) + "/" + s.Name }

// Compare orders sources by kind, then name.
func (s Source) Compare(o Source) int {
	return cmp.Or(cmp.Compare(s.Kind, o.Kind), cmp.Compare(s.Name, o.Name))
}

// Part is what one source says the world looks like. It is immutable once
// published, down to the services and apps it points to; a service or app that
// did not change keeps its pointer from one part to the next, which is what
// makes a change cost its own size further down.
type Part struct {
	Source Source `json:"source"`
	// Datacenter is the one that the part's instances run in. Empty for a part
	// that only holds Datacenters.
	Datacenter string `json:"datacenter,omitempty"`
	// Services of Consul and files, by name.
	Services map[string]*Service `json:"services,omitempty"`
	// Apps of Marathon, by id.
	Apps map[string]*App `json:"apps,omitempty"`
	// Datacenters as the local one sees them, nearest first; only Consul knows.
	Datacenters []Datacenter `json:"datacenters,omitempty"`
	// Findings are about input that could not be read; what could be is in the part.
	Findings []Finding `json:"findings,omitempty"`

	before  weak.Pointer[Part]
	touched []string
}

// Follow notes, before the part is published, which part came before it and in which
// services the two differ, by name: those that are in one of them only included.
func (p *Part) Follow(before *Part, services []string) {
	p.before, p.touched = weak.Make(before), services
}

// ChangedSince are the names of the services in which the part differs from another one.
// They are known if that is the one before it and its source has said so with Follow;
// otherwise the services have to be compared.
func (p *Part) ChangedSince(before *Part) (services []string, known bool) {
	if before == nil || p.before.Value() != before {
		return nil, false
	}
	return p.touched, true
}

// Datacenter is one that the catalog knows.
type Datacenter struct {
	Name string `json:"name"`
	// RTT is the median round-trip time from the local datacenter; 0 where it is
	// not known.
	RTT time.Duration `json:"rtt,omitempty"`
}

// Service is what one registry of one datacenter has under one name.
type Service struct {
	Name string `json:"name"`
	// Instances, sorted by node, then id.
	Instances []Instance `json:"instances"`
}

// Instance is one address and port that serves.
type Instance struct {
	// ID is unique on its node (Consul's service id).
	ID   string `json:"id"`
	Node string `json:"node"`
	// Address as reached from the edge: for another datacenter the WAN address
	// where one is tagged.
	Address netip.AddrPort `json:"address"`
	Health  Health         `json:"health"`
	// Reason names the check behind a health that is not passing.
	Reason  string            `json:"reason,omitempty"`
	Weights Weights           `json:"weights"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
}

// Weights are Consul's: how much traffic an instance is to have while its checks
// pass and while one warns. Consul's defaults are 1 and 1; its range is 0 to 65535.
type Weights struct {
	Passing int `json:"passing"`
	Warning int `json:"warning"`
}

// Health is how an instance is, worst last.
type Health int

const (
	// HealthUnknown: nobody has checked, or the verdict was lost.
	HealthUnknown Health = iota
	HealthPassing
	HealthWarning
	// HealthMaintenance: a person asked for no new traffic (Consul's node or
	// service maintenance), or the platform is about to end it (TASK_KILLING).
	HealthMaintenance
	HealthCritical
)

var healthNames = [...]string{"unknown", "passing", "warning", "maintenance", "critical"}

func (h Health) String() string {
	if h < 0 || int(h) >= len(healthNames) {
		return "invalid"
	}
	return healthNames[h]
}

// MarshalText gives the word, so that saved and printed snapshots are readable.
func (h Health) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText reads what MarshalText wrote. An unknown word is HealthUnknown:
// a snapshot saved by a newer mi-lb must still route.
func (h *Health) UnmarshalText(text []byte) error {
	*h = HealthUnknown
	for i, name := range healthNames {
		if name == string(text) {
			*h = Health(i)
		}
	}
	return nil
}

// Worse is the worse of the two; unknown gives way to any verdict.
func (h Health) Worse(o Health) Health { return max(h, o) }
