package main

import (
	"context"
	"errors"
	"os"
	"reflect"
	"runtime/debug"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

const (
	// settleFor is how long the first table waits for sources that have not
	// answered: routes that one of them has should not go to another's meanwhile.
	settleFor = 5 * time.Second
	// garbage is how much of it there may be in memory before it is collected, in percent
	// of what is in use. Most of what is in use stays for long and changes little.
	garbage = 50
	// saveEvery is the least time between two savings of the snapshot, which are to take
	// one saveShare-th of the time at most.
	saveEvery = 2 * time.Second
	saveShare = 500
	// saveWithin is how old what is saved may be, whatever its share.
	saveWithin = 20 * time.Second
	// locateAgain is how long after an agent did not say its datacenter it is asked again.
	locateAgain = time.Second
)

// watching is the watchers that run, to be ended together.
type watching struct {
	watchers int
	cancel   context.CancelFunc
	all      sync.WaitGroup
}

func (w *watching) end() {
	if w != nil {
		w.cancel()
		w.all.Wait()
	}
}

// run serves until the context ends.
func (e *edge) run(ctx context.Context) error {
	defer close(e.done)
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	driven := make(chan error, 1)
	go func() { driven <- e.driver.Run(ctx) }()
	err := e.route(ctx, driven)
	if err != nil {
		return err
	}
	return <-driven
}

// locate finds out which datacenter is the local one, however long that takes.
func (e *edge) locate(ctx context.Context, saved *watch.Snapshot, located chan<- string) {
	said := ""
	for ctx.Err() == nil {
		datacenter, err := localDatacenter(ctx, e.configuration(), saved, e.log)
		if err == nil {
			located <- datacenter
			return
		}
		if text := err.Error(); text != said && ctx.Err() == nil {
			e.log.Error("the local datacenter is not known yet; asking again", "error", err)
			said = text
		}
		select {
		case <-ctx.Done():
		case <-e.changed: // the configuration may say it now
		case <-time.After(locateAgain):
		}
	}
}

// route makes tables of snapshots until the context ends.
func (e *edge) route(ctx context.Context, driven chan error) error {
	saved := e.loadSnapshot()
	e.wait("Consul, to learn the local datacenter")
	located := make(chan string, 1)
	go e.locate(ctx, saved, located)
	var datacenter string
	select {
	case datacenter = <-located:
	case err := <-driven:
		driven <- err
		return err
	case <-ctx.Done():
		return nil
	}
	world := watch.NewWorld(saved, datacenter, time.Now)
	e.mu.Lock()
	e.world = world
	e.mu.Unlock()
	if err := e.watch(ctx, saved); err != nil {
		return err
	}
	defer func() { e.watching.end() }()
	var savings sync.WaitGroup
	savings.Go(func() { e.saveSnapshots(ctx, world) })
	defer savings.Wait()

	compiler := routing.NewCompiler(e.driver.Claims())
	var last *watch.Snapshot
	var lastPolicy routing.Policy
	deadline := time.NewTimer(settleFor)
	defer deadline.Stop()
	expired := false
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	e.wait("the sources to answer")
	for {
		_, changed := world.Snapshot()
		// Each watcher makes at least one source known. A source publishes before it says
		// that it is current: what is asked in this order, the snapshot last, has the
		// parts of all that have settled.
		settled := len(world.States()) >= e.watching.watchers && world.Settled()
		snapshot, _ := world.Snapshot()
		p := policy(e.configuration())
		if (settled || expired || saved != nil) && (snapshot != last || !reflect.DeepEqual(p, lastPolicy)) {
			e.driver.Want(haproxy.Wanted{Table: compiler.Compile(snapshot, p), Snapshot: snapshot})
			last, lastPolicy = snapshot, p
		}
		e.settle(settled, snapshot)
		select {
		case <-ctx.Done():
			return nil
		case err := <-driven:
			driven <- err
			return err
		case <-changed:
		case <-e.changed:
		case <-e.resync:
			e.watching.end()
			if err := e.watch(ctx, snapshot); err != nil {
				e.log.Error("start the watchers again", "error", err)
			}
		case <-deadline.C:
			expired = true
		case <-tick.C:
		}
	}
}

// watch starts the watchers of the configuration.
func (e *edge) watch(ctx context.Context, saved *watch.Snapshot) error {
	snapshot, _ := e.world.Snapshot()
	all, err := watchers(e.configuration(), snapshot.Datacenter, saved, e.log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{cancel: cancel, watchers: len(all)}
	for _, watcher := range all {
		w.all.Go(func() { watcher.Run(ctx, e.world) })
	}
	e.mu.Lock()
	e.watching = w
	e.mu.Unlock()
	return nil
}

func (e *edge) loadSnapshot() *watch.Snapshot {
	saved, at, err := watch.Load(e.paths.snapshot)
	if err != nil {
		e.log.Warn("starting without the saved snapshot", "error", err)
		return nil
	}
	if saved != nil {
		e.log.Info("starting from the saved snapshot", "revision", saved.Revision, "saved", at.Format(time.RFC3339))
	}
	return configured(e.configuration(), saved)
}

func (e *edge) saveSnapshots(ctx context.Context, world *watch.World) {
	saver := watch.NewSaver(e.paths.snapshot)
	var last *watch.Snapshot
	var next time.Time
	save := func() {
		snapshot, _ := world.Snapshot()
		if snapshot == last || len(snapshot.Parts) == 0 {
			return
		}
		began := time.Now()
		defer func() { next = time.Now().Add(min(saveShare*time.Since(began), saveWithin)) }()
		if err := saver.Save(snapshot, time.Now()); err != nil {
			e.log.Warn("the snapshot is not saved", "error", err)
			return
		}
		last = snapshot
	}
	defer save()
	tick := time.NewTicker(saveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if !now.Before(next) {
				save()
			}
		}
	}
}

func (e *edge) wait(what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting = what
}

// settle finds out when the edge is ready: when HAProxy runs the first table that all
// reachable sources are in.
func (e *edge) settle(settled bool, snapshot *watch.Snapshot) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ready {
		return
	}
	if settled && !e.settled {
		e.settled, e.readyFrom = true, snapshot.Revision
		e.waiting = "HAProxy to run the first table"
	}
	status := e.driver.Status()
	if e.settled && status.Running && e.driver.Table() != nil && status.Revision >= e.readyFrom {
		e.ready = true
		e.waiting = ""
		e.log.Info("ready", "revision", status.Revision)
		_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
		// To start takes much more memory than to follow.
		go debug.FreeOSMemory()
	}
}

func (e *edge) configuration() config.Config {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.config
}

// reconfigure takes over what can change without a restart, and names what cannot.
func (e *edge) reconfigure(c config.Config) error {
	e.mu.Lock()
	before := e.config
	after := before
	after.Domain, after.Exposure, after.Locality, after.Balance = c.Domain, c.Exposure, c.Locality, c.Balance
	after.Consul.Groups, after.Consul.Domain, after.Log.Level = c.Consul.Groups, c.Consul.Domain, c.Log.Level
	if len(c.Marathon) == len(before.Marathon) {
		after.Marathon = make([]config.Marathon, len(before.Marathon))
		for i, m := range before.Marathon {
			m.Groups = c.Marathon[i].Groups
			after.Marathon[i] = m
		}
	}
	e.config = after
	e.mu.Unlock()
	if keys := config.Differences(after, c); len(keys) > 0 {
		e.log.Warn("some keys need a restart to take effect", "keys", keys)
	}
	e.signal()
	return e.reloadTemplates()
}

func (e *edge) reloadTemplates() error {
	if err := e.engine.Reload(); err != nil {
		return err
	}
	e.driver.TemplatesChanged()
	return nil
}

func (e *edge) signal() {
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// stop waits for run to end, and ends HAProxy unless it is to be left.
func (e *edge) stop(leave bool, signals <-chan os.Signal) error {
	<-e.done
	c := e.configuration()
	if leave || !c.HAProxy.Manage {
		return e.driver.Close()
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-signals: // a second one: at once
			cancel()
		case <-ctx.Done():
		}
	}()
	return errors.Join(e.driver.Stop(ctx, max(c.HAProxy.Drain, time.Millisecond)), e.driver.Close())
}

// Table implements admin.Edge.
func (e *edge) Table() *routing.Table { return e.driver.Table() }

// States implements admin.Edge.
func (e *edge) States() []watch.State {
	e.mu.Lock()
	world := e.world
	e.mu.Unlock()
	if world == nil {
		return nil
	}
	return world.States()
}

// Ready implements admin.Edge. An edge that was ready is not when HAProxy is gone.
func (e *edge) Ready() (bool, string) {
	e.mu.Lock()
	ready, waiting := e.ready, e.waiting
	e.mu.Unlock()
	switch {
	case !ready:
		return false, "waiting for " + waiting
	case !e.driver.Status().Running:
		return false, "HAProxy does not run"
	}
	return true, ""
}

// Status implements admin.Edge.
func (e *edge) Status() haproxy.Status { return e.driver.Status() }

// Events implements admin.Edge.
func (e *edge) Events() []haproxy.Event { return e.driver.Events() }

// Configuration implements admin.Edge.
func (e *edge) Configuration() ([]byte, error) { return e.driver.Configuration() }

// Reload implements admin.Edge.
func (e *edge) Reload(ctx context.Context) error { return e.driver.Reload(ctx, "asked") }

// Resync implements admin.Edge: every watcher starts anew, with what is known now.
func (e *edge) Resync(ctx context.Context) error {
	e.mu.Lock()
	started := e.watching != nil
	e.mu.Unlock()
	if !started {
		return errors.New("not started yet")
	}
	select {
	case e.resync <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
