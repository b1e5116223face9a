package haproxy

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
)

// Options are what a driver is made of.
type Options struct {
	// Path of the haproxy program, or its name on the PATH.
	Path string
	// Managed: HAProxy is started and supervised; else attached to.
	Managed      bool
	MasterSocket string
	// StateFile remembers what HAProxy was told, and who has which port and host.
	StateFile string
	Settings  render.Settings
	Engine    *templates.Engine
	// Drain is how long the sessions of a server that vanished may go on.
	Drain time.Duration
	// ReloadEvery is the least time between two reloads.
	ReloadEvery time.Duration
	// Patience is how long a reload that nothing is wrong without may wait for others; 0
	// for 30 s.
	Patience time.Duration
	// MostOldWorkers postpones reloads while so many workers still finish sessions;
	// 0 for 8. Each is a full copy of HAProxy's memory.
	MostOldWorkers int
	// DriftEvery is how often what runs is read back; 0 for never.
	DriftEvery time.Duration
	// Settle is the least time between two writes of the files behind runtime
	// changes; 0 for 250 ms.
	Settle time.Duration
	// FilesWithin is how far the files may be behind while changes go on, as writing
	// them may take only so much of the time; 0 for 20 s.
	FilesWithin time.Duration
	Observer    Observer
	Log         *slog.Logger
}

// Wanted is what HAProxy should do.
type Wanted struct {
	Table *routing.Table
	// Snapshot is what the table was compiled from: the operator's own templates can
	// ask for more than a table has.
	Snapshot *watch.Snapshot
	// blocked are ports of the range that another program has; sorted.
	blocked []int
}

// Driver makes one HAProxy do what is wanted. Its methods may be called from any
// goroutine.
type Driver struct {
	o        Options
	process  *process.Process
	renderer *render.Renderer
	saved    saved
	states   *states
	log      *slog.Logger

	wake      chan struct{}
	templates chan struct{}
	orders    chan order

	mu     sync.Mutex
	wanted Wanted
	table  *routing.Table
	status Status
	events []Event
	// left is what the number of leftovers is asked of.
	left leftover
}

// leftover counts what waits for a reload to go, when somebody asks.
type leftover struct {
	running *plan.Running
	wanted  *routing.Table
}

func (l leftover) count() int {
	if l.running == nil || l.wanted == nil {
		return 0
	}
	return l.running.Leftovers(l.wanted)
}

// mostEvents is how many events are remembered.
const mostEvents = 200

// New prepares a driver. It neither starts nor looks for a HAProxy, but reads what an
// earlier driver remembered.
func New(o Options) (*Driver, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	if o.Observer == nil {
		o.Observer = nobody{}
	}
	if o.Settle <= 0 {
		o.Settle = 250 * time.Millisecond
	}
	if o.FilesWithin <= 0 {
		o.FilesWithin = 20 * time.Second
	}
	if o.Patience <= 0 {
		o.Patience = 30 * time.Second
	}
	if o.MostOldWorkers <= 0 {
		o.MostOldWorkers = 8
	}
	o.Settings = o.Settings.WithDefaults()
	if err := o.Settings.Validate(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Settings.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make HAProxy's directory: %w", err)
	}
	if err := removeChecks(o.Settings.Dir); err != nil {
		o.Log.Warn("files of a check are left", "error", err)
	}
	p, err := process.New(process.Config{
		Path: o.Path, Files: []string{render.ConfigPath(o.Settings.Dir)}, MasterSocket: o.MasterSocket,
		RuntimeSocket: o.Settings.Socket, Output: filepath.Join(o.Settings.Dir, "output"), Managed: o.Managed,
		Log: o.Log.With("component", "haproxy"),
	})
	if err != nil {
		return nil, err
	}
	d := &Driver{
		o: o, process: p, renderer: render.New(o.Engine), log: o.Log,
		states: newStates(o.StateFile),
		wake:   make(chan struct{}, 1), templates: make(chan struct{}, 1), orders: make(chan order),
	}
	if d.saved, err = loadState(o.StateFile); err != nil {
		// Without it HAProxy is reloaded once more than needed, and that is all.
		o.Log.Warn("what HAProxy was told before is not known", "error", err)
	}
	return d, nil
}

// nobody observes nothing.
type nobody struct{}

func (nobody) Applied(time.Duration) {}
func (nobody) Operated(string, int)  {}
func (nobody) Reloaded(string, bool) {}
func (nobody) Repaired(string, int)  {}

// Claims are who had what when the last driver stopped.
func (d *Driver) Claims() routing.Claims {
	if d.saved.Table == nil {
		return nil
	}
	return d.saved.Table.Claims()
}

// Want sets what HAProxy should do from now on. It returns at once; the newest wins.
func (d *Driver) Want(w Wanted) {
	d.mu.Lock()
	d.wanted = w
	d.mu.Unlock()
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Table that HAProxy runs, or is about to run once what [Status.Pending] says is
// done; nil before the first.
func (d *Driver) Table() *routing.Table {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.table
}

// Status of HAProxy.
func (d *Driver) Status() Status {
	d.mu.Lock()
	status, left := d.status, d.left
	d.mu.Unlock()
	status.Leftovers = left.count()
	return status
}

// Events, newest first.
func (d *Driver) Events() []Event {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := slices.Clone(d.events)
	slices.Reverse(all)
	return all
}

// Configuration is HAProxy's file as it was last written.
func (d *Driver) Configuration() ([]byte, error) {
	files, err := render.Read(d.o.Settings.Dir)
	if err != nil {
		return nil, fmt.Errorf("read HAProxy's configuration: %w", err)
	}
	return files[render.ConfigFile], nil
}

// order is something that an operator asks for, beside what is wanted.
type order struct {
	reason string
	// done gets the outcome.
	done chan error
}

// Reload validates the files and reloads HAProxy, whether anything changed or not,
// for a reason that is a stable word.
func (d *Driver) Reload(ctx context.Context, reason string) error {
	o := order{reason: reason, done: make(chan error, 1)}
	select {
	case d.orders <- o:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-o.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TemplatesChanged says that the engine's templates were read anew.
func (d *Driver) TemplatesChanged() {
	select {
	case d.templates <- struct{}{}:
	default:
	}
}

// Run drives HAProxy until the context ends, and leaves it running. It returns an
// error only if it cannot begin.
func (d *Driver) Run(ctx context.Context) error {
	return newLoop(d).run(ctx)
}

// Close ends the watching of HAProxy, which runs on if it was not stopped. It is for
// after Run, and Stop if that is wanted, have returned.
func (d *Driver) Close() error { return d.process.Close() }

// Stop ends a managed HAProxy: it takes no new connection and finishes what it has
// for at most so long. It is for after Run has returned.
func (d *Driver) Stop(ctx context.Context, drain time.Duration) error {
	return d.process.Stop(ctx, drain)
}

func (d *Driver) record(e Event) {
	e.At = time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.events) >= mostEvents {
		d.events = slices.Delete(d.events, 0, len(d.events)-mostEvents+1)
	}
	d.events = append(d.events, e)
	if e.Error != "" {
		d.status.LastError, d.status.LastErrorAt = e.Error, e.At
	}
}
