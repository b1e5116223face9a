package watch

import (
	"context"
	"time"
)

// Watcher keeps one or more sources' parts of the world fresh.
type Watcher interface {
	// Run publishes to the sink until the context ends, and returns only then.
	// Whatever goes wrong in between is reported to the sink and retried.
	Run(ctx context.Context, sink Sink)
}

// Sink is where watchers put what they learn. None of its methods blocks on
// whoever reads it.
type Sink interface {
	// Publish replaces the source's part. A watcher that lost contact must not
	// publish: the last good part stays.
	Publish(p *Part)
	// Withdraw removes the source and its part for good: a datacenter that left
	// the catalog.
	Withdraw(s Source)
	// Report says how the source is. The first report of a source makes it known.
	Report(s State)
}

// Status says whether a source's part can be relied upon.
type Status string

const (
	// Connecting: it has not answered yet.
	Connecting Status = "connecting"
	// Current: its part is what it says now.
	Current Status = "current"
	// Stale: contact is lost, or its answer is not believed yet; the last good
	// part stands.
	Stale Status = "stale"
)

// State is how a source is.
type State struct {
	Source Source `json:"source"`
	Status Status `json:"status"`
	// Since is when it took on this status.
	Since time.Time `json:"since"`
	// LastSuccess is when it last answered; zero if never.
	LastSuccess time.Time `json:"lastSuccess,omitzero"`
	// LastError is the newest failure, kept after recovery, with when it was.
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
	// Held counts instances that the source no longer names but that are kept
	// until their absence is confirmed.
	Held int `json:"held,omitempty"`
	// Detail says how it is watched: "by node, 102 long-polls".
	Detail string `json:"detail,omitempty"`
}

// Age is how long ago the source last answered, as seen now; 0 if it never did.
func (s State) Age(now time.Time) time.Duration {
	if s.LastSuccess.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.LastSuccess))
}
