package apply

import "time"

// State is how far something has come.
type State string

// States of a component on a machine.
const (
	Working   State = "working"
	Waiting   State = "waiting" // for health, a lock, or its turn
	Done      State = "done"
	Unchanged State = "unchanged"
	Failed    State = "failed"
	Skipped   State = "skipped"
)

// Event is something that happens on a machine, or in a datacenter where there is
// no node.
type Event struct {
	At         time.Time `json:"at"`
	Component  string    `json:"component"`
	Datacenter string    `json:"datacenter"`
	Node       string    `json:"node,omitempty"`
	State      State     `json:"state"`
	// Step is what is done or waited for.
	Step string `json:"step,omitempty"`
	// Error is why it failed.
	Error string `json:"error,omitempty"`
}
