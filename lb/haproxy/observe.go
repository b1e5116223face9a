package haproxy

import "time"

// Event is one thing that was done to HAProxy, for people who ask what happened.
type Event struct {
	At time.Time `json:"at"`
	// Kind is "applied", "reloaded", "reload-failed", "repaired", "quarantined",
	// "process" (HAProxy started, adopted, restarted, lost) or "refused".
	Kind string `json:"kind"`
	// Revision of the snapshot behind it; 0 if none is.
	Revision uint64 `json:"revision,omitempty"`
	// Operations sent through the runtime API.
	Operations int `json:"operations,omitempty"`
	// Reason of a reload: one of a few stable words.
	Reason string `json:"reason,omitempty"`
	// Detail for a person.
	Detail string `json:"detail,omitempty"`
	// Seconds from when the newest input was received to when traffic followed.
	Seconds float64 `json:"seconds,omitempty"`
	Error   string  `json:"error,omitempty"`
}

// Observer is told what was done, to count it. Its methods must not block.
type Observer interface {
	// Applied: a change reached traffic, so long after its newest input was received.
	Applied(latency time.Duration)
	// Operated: so many operations of the kind were carried out.
	Operated(kind string, count int)
	// Reloaded: HAProxy was reloaded for the reason, or refused to.
	Reloaded(reason string, ok bool)
	// Repaired: so many differences of the kind between what HAProxy ran and what
	// it should were mended.
	Repaired(kind string, count int)
}

// Status is how HAProxy is.
type Status struct {
	// Running: a worker accepts connections.
	Running bool   `json:"running"`
	Version string `json:"version,omitempty"`
	Master  int    `json:"master,omitempty"`
	Worker  int    `json:"worker,omitempty"`
	// OldWorkers finish the sessions that they have.
	OldWorkers []int `json:"oldWorkers,omitempty"`
	// Since is when this worker was first seen.
	Since time.Time `json:"since,omitzero"`
	// Revision of the snapshot that HAProxy runs; 0 before the first.
	Revision uint64 `json:"revision"`
	// Pending says why a newer table does not run yet; empty if it does.
	Pending string `json:"pending,omitempty"`
	// Quarantined services are left out because HAProxy does not accept its
	// configuration with them.
	Quarantined []string `json:"quarantined,omitempty"`
	// Leftovers are servers and backends that wait for the next reload to go.
	Leftovers int `json:"leftovers,omitempty"`
	// LastError is the newest failure, with when it was; it stays after recovery.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}
