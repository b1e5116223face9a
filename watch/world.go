package watch

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// World merges the parts that watchers publish into snapshots. The newest
// snapshot wins: a slow reader misses intermediate ones and never blocks a
// watcher.
type World struct {
	now func() time.Time

	mu       sync.Mutex
	snapshot *Snapshot
	states   map[Source]State
	// changed is closed and replaced with every new snapshot or state.
	changed chan struct{}
}

var _ Sink = (*World)(nil)

// NewWorld starts from a saved snapshot, or from nothing if it is nil.
func NewWorld(saved *Snapshot, datacenter string, now func() time.Time) *World {
	snapshot := &Snapshot{Datacenter: datacenter}
	if saved != nil {
		snapshot = &Snapshot{
			Revision:   saved.Revision,
			Datacenter: datacenter,
			Parts:      slices.Clone(saved.Parts),
			At:         saved.At,
		}
	}
	return &World{now: now, snapshot: snapshot, states: map[Source]State{}, changed: make(chan struct{})}
}

// Publish implements Sink.
func (w *World) Publish(p *Part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.snapshot = w.snapshot.With(p, w.now())
	w.signal()
}

// Withdraw implements Sink.
func (w *World) Withdraw(s Source) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.states, s)
	if w.snapshot.Part(s) != nil {
		w.snapshot = w.snapshot.Without(s, w.now())
	}
	w.signal()
}

// Report implements Sink.
func (w *World) Report(s State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.states[s.Source] = s
	w.signal()
}

func (w *World) signal() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Snapshot is the newest one, and a channel that is closed when it, or the state
// of a source, is no longer the newest.
func (w *World) Snapshot() (*Snapshot, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snapshot, w.changed
}

// States are how the known sources are, sorted by source.
func (w *World) States() []State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.SortedFunc(maps.Values(w.states), func(a, b State) int { return a.Source.Compare(b.Source) })
}

// loading is how long a source may take to say all that it has although some of its
// answers fail.
const loading = 20 * time.Second

// Settled says whether every known source has answered or failed at least once:
// until then the snapshot may miss what a reachable source is about to say. One that
// answers has not failed because not all of its answers come at the first try.
func (w *World) Settled() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, s := range w.states {
		if s.Status == Connecting && (s.LastError == "" || !s.LastSuccess.IsZero() && now.Sub(s.Since) < loading) {
			return false
		}
	}
	return true
}
