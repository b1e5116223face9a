package plan

import (
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
)

// Sign says whether something appears, changes or goes.
type Sign string

// Signs.
const (
	Add    Sign = "+"
	Modify Sign = "~"
	Remove Sign = "-"
)

// Kind is what a change is about.
type Kind string

// Kinds, in the order in which changes are made on a machine.
const (
	RepositoryFile Kind = "repository"
	Mask           Kind = "mask" // a unit that must never run
	Package        Kind = "package"
	User           Kind = "user"
	Directory      Kind = "directory"
	Program        Kind = "program"
	File           Kind = "file"
	UnitFile       Kind = "unit file"
	DropIn         Kind = "drop-in"
	Then           Kind = "command" // that a file asks for after a change
	Stop           Kind = "stop"
	Enable         Kind = "enable"
	Start          Kind = "start"
	Restart        Kind = "restart"
	Reload         Kind = "reload"
)

// Activates says whether a change makes units run what was changed before.
func (k Kind) Activates() bool {
	return slices.Contains([]Kind{Stop, Enable, Start, Restart, Reload}, k)
}

// Change is one change on one machine.
type Change struct {
	Sign Sign   `json:"sign"`
	Kind Kind   `json:"kind"`
	Name string `json:"name"` // a path, or the name of a package, user or unit
	// What says what changes, Why what for, where that is not plain.
	What string `json:"what,omitempty"`
	Why  string `json:"why,omitempty"`
	// Diff is the difference of contents, without secrets.
	Diff string `json:"diff,omitempty"`

	// Attributes says that the content stays: only mode or owner change.
	Attributes bool `json:"-"`
	// What apply works with; one of them is set where the kind has more than a name.
	Package *desired.Package   `json:"-"`
	User    *desired.User      `json:"-"`
	Dir     *desired.Directory `json:"-"`
	Program *desired.Program   `json:"-"`
	File    *desired.File      `json:"-"` // also of unit files, drop-ins and repositories
	Unit    *desired.Unit      `json:"-"`
}

// Host is what changes on one machine in one wave.
type Host struct {
	Node       string   `json:"node"`
	Datacenter string   `json:"datacenter"`
	Changes    []Change `json:"changes"`

	// Part is what the component wants of the machine.
	Part *desired.Part `json:"-"`
	// Spoils are the stamps that are not true any more as soon as the first change
	// is made, Stamps what is noted when all are, by name. Units says which of them
	// are noted when that unit was started, restarted or reloaded.
	Spoils []string                     `json:"-"`
	Stamps map[string]string            `json:"-"`
	Units  map[string]map[string]string `json:"-"`
	// Manifest is what to note before the first change: all that this and earlier
	// runs have put there.
	Manifest string `json:"-"`
}

// Restarts are the units that the host's changes restart.
func (h Host) Restarts() []string {
	var units []string
	for _, c := range h.Changes {
		if c.Kind == Restart {
			units = append(units, c.Name)
		}
	}
	return units
}

// Wave is what changes for one component.
type Wave struct {
	Component string             `json:"component"`
	Hosts     []Host             `json:"hosts,omitempty"`
	Actions   []component.Action `json:"actions,omitempty"`
	// Order is in which order members are restarted, one at a time, by datacenter,
	// as far as it is known before.
	Order map[string][]string `json:"order,omitempty"`
	// Lost is why there is no quorum to protect now, by datacenter: if there is still
	// none when it comes to it, members restart all at once.
	Lost map[string]string `json:"lost,omitempty"`
}

// Unreachable is a machine that could not be looked at.
type Unreachable struct {
	Node       string `json:"node"`
	Datacenter string `json:"datacenter"`
	Why        string `json:"why"`
}

// Plan is what has to be done.
type Plan struct {
	Format int       `json:"format"`
	Made   time.Time `json:"made"`
	// By is the version of mi-lb that made it.
	By       string `json:"by"`
	Platform string `json:"platform"` // its domain
	// Waves are in order; those without changes are left out.
	Waves       []Wave              `json:"waves"`
	Unreachable []Unreachable       `json:"unreachable,omitempty"`
	Problems    []component.Problem `json:"problems,omitempty"`
	// Facts are the fingerprints of what the plan was made from, by node and thing.
	Facts map[string]map[string]string `json:"facts"`
}

// IsEmpty says whether there is nothing to do on the machines that were looked at.
func (p *Plan) IsEmpty() bool { return len(p.Waves) == 0 }

// Fatal are the problems that keep the plan from being applied.
func (p *Plan) Fatal() []component.Problem {
	return slices.DeleteFunc(slices.Clone(p.Problems), func(x component.Problem) bool { return !x.Fatal })
}

// Counts are how much a plan changes.
type Counts struct {
	Hosts    int `json:"hosts"`
	Add      int `json:"add"`
	Change   int `json:"change"`
	Remove   int `json:"remove"`
	Starts   int `json:"starts"`
	Restarts int `json:"restarts"`
	Reloads  int `json:"reloads"`
	Actions  int `json:"actions"`
}

// Counts counts the changes.
func (p *Plan) Counts() Counts {
	var n Counts
	hosts := map[string]bool{}
	for _, w := range p.Waves {
		n.Actions += len(w.Actions)
		for _, h := range w.Hosts {
			hosts[h.Node] = true
			for _, c := range h.Changes {
				switch {
				case c.Kind == Start:
					n.Starts++
				case c.Kind == Restart:
					n.Restarts++
				case c.Kind == Reload:
					n.Reloads++
				case c.Sign == Add:
					n.Add++
				case c.Sign == Remove:
					n.Remove++
				default:
					n.Change++
				}
			}
		}
	}
	n.Hosts = len(hosts)
	return n
}
