package marathon

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"
)

// Cluster is an emulated Marathon cluster with the agents it runs apps on.
type Cluster struct {
	options Options
	release release
	log     *slog.Logger
	hub     *hub
	faults  faults
	members []*member
	dir     string
	ownDir  bool

	background sync.WaitGroup // everything that runs for tasks
	observer   observerQueue

	mu          sync.Mutex
	apps        map[string]*app
	groups      map[string]group
	deployments []*deployment
	rootVersion string
	lastVersion time.Time
	leader      int // -1 without
	elections   int // counts, to tell a pending election that it is outdated
	elected     chan struct{}
	dirty       map[string]bool
	changed     chan struct{} // closed with the next change
	closed      bool

	byID         map[string]*task
	load         map[string]int // tasks by agent id
	servicePorts map[int]int    // how many ports of apps have them
	hostPorts    map[hostPort]bool
	containerIPs map[netip.Addr]bool
	lastBridge   int
}

// Start starts a cluster; close it when done. Its API answers when Start has
// returned.
func Start(options Options) (*Cluster, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start Marathon emulator: %w", err)
	}
	release, err := parseRelease(options.Version)
	if err != nil {
		return nil, fmt.Errorf("start Marathon emulator: %w", err)
	}
	c := &Cluster{
		options: options, release: release, log: options.Logger,
		hub:  newHub(options.EventBuffer, release.closesSlowStreams()),
		apps: map[string]*app{}, groups: map[string]group{}, dirty: map[string]bool{},
		changed: make(chan struct{}), elected: make(chan struct{}), load: map[string]int{}, servicePorts: map[int]int{}, byID: map[string]*task{},
		hostPorts: map[hostPort]bool{}, containerIPs: map[netip.Addr]bool{},
	}
	c.rootVersion = c.newVersion()
	c.dir = options.Dir
	if c.dir == "" && !options.Fake {
		c.ownDir = true
		if c.dir, err = os.MkdirTemp("", "marathon-emulator-"); err != nil {
			return nil, fmt.Errorf("start Marathon emulator: %w", err)
		}
	}
	c.observer.start(options.Observer)
	if options.Restore != nil {
		c.mu.Lock()
		err := c.restore(*options.Restore)
		c.mu.Unlock()
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("start Marathon emulator: %w", err)
		}
	}
	for i, address := range options.Listen {
		m := &member{cluster: c, index: i, listen: address}
		c.members = append(c.members, m)
		if err := m.start(); err != nil {
			c.Close()
			return nil, fmt.Errorf("start Marathon emulator: %w", err)
		}
	}
	return c, nil
}

// URL is where the first member's API is.
func (c *Cluster) URL() string { return c.members[0].url() }

// URLs are where all members' APIs are.
func (c *Cluster) URLs() []string {
	var urls []string
	for _, m := range c.members {
		urls = append(urls, m.url())
	}
	return urls
}

// Close ends the API, every task at once, and returns when nothing is left of
// them and the observer has heard of it.
func (c *Cluster) Close() {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return
	}
	c.closed = true
	for _, a := range c.apps {
		a.target = nil
		if a.retry != nil {
			a.retry.Stop()
		}
		for _, t := range slices.Clone(a.tasks) {
			t.killing = true
			if t.proc != nil {
				t.proc.Kill()
			} else if c.options.Runner != nil {
				t.cancel() // it runs on
			} else if t.fake || c.options.Fake {
				c.setState(t, stateKilled, "")
			}
		}
	}
	c.mu.Unlock()
	c.hub.hangUp()
	c.faults.Clear()
	for _, m := range c.members {
		m.stop()
	}
	c.background.Wait()
	c.observer.stop()
	if c.ownDir {
		os.RemoveAll(c.dir)
	}
}

// unlock settles everything that follows from what was changed under the lock,
// and gives it up.
func (c *Cluster) unlock() {
	if c.settle() {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	c.mu.Unlock()
}

func (c *Cluster) touch(apps ...string) {
	for _, id := range apps {
		c.dirty[id] = true
	}
}

func (c *Cluster) settle() (changed bool) {
	for !c.closed {
		moved := c.advance()
		if len(c.dirty) == 0 && !moved {
			return changed
		}
		changed = true
		dirty := c.dirty
		c.dirty = map[string]bool{}
		for _, id := range sortedKeys(dirty) {
			a := c.apps[id]
			if a == nil {
				continue
			}
			c.reconcile(a)
			if a.def == nil && len(a.tasks) == 0 && len(c.deploymentsOf(id)) == 0 {
				delete(c.apps, id)
			}
		}
	}
	return true
}

// newVersion is a time that no version had before.
func (c *Cluster) newVersion() string {
	now := time.Now().Truncate(time.Millisecond)
	if !now.After(c.lastVersion) {
		now = c.lastVersion.Add(time.Millisecond)
	}
	c.lastVersion = now
	return timestamp(now)
}

// Tasks are an app's tasks, oldest first.
func (c *Cluster) Tasks(appID string) []Task {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tasks(appID)
}

func (c *Cluster) tasks(appID string) []Task {
	var tasks []Task
	if a := c.apps[canonicalID("", appID)]; a != nil {
		for _, t := range a.tasks {
			tasks = append(tasks, t.view())
		}
	}
	return tasks
}

// WaitTasks waits until an app's tasks fulfil a condition.
func (c *Cluster) WaitTasks(ctx context.Context, appID string, holds func([]Task) bool) ([]Task, error) {
	for {
		c.mu.Lock()
		tasks, changed := c.tasks(appID), c.changed
		c.mu.Unlock()
		if holds(tasks) {
			return tasks, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return tasks, fmt.Errorf("wait for tasks of %s, of which there are %d: %w", appID, len(tasks), ctx.Err())
		}
	}
}

// WaitDeployments waits until no deployment is running.
func (c *Cluster) WaitDeployments(ctx context.Context) error {
	for {
		c.mu.Lock()
		running, changed := len(c.deployments), c.changed
		c.mu.Unlock()
		if running == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for %d deployments: %w", running, ctx.Err())
		}
	}
}

// observerQueue calls an observer in order, outside of any lock.
type observerQueue struct {
	mu      sync.Mutex
	waiting sync.Cond
	calls   []func()
	ended   bool
	done    chan struct{}
	to      Observer
}

func (q *observerQueue) start(to Observer) {
	q.to, q.done = to, make(chan struct{})
	q.waiting.L = &q.mu
	go func() {
		defer close(q.done)
		for {
			q.mu.Lock()
			for len(q.calls) == 0 && !q.ended {
				q.waiting.Wait()
			}
			calls := q.calls
			q.calls = nil
			q.mu.Unlock()
			if len(calls) == 0 {
				return
			}
			for _, call := range calls {
				call()
			}
		}
	}()
}

func (q *observerQueue) add(call func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.calls = append(q.calls, call)
	q.waiting.Signal()
}

func (q *observerQueue) stop() {
	q.mu.Lock()
	q.ended = true
	q.waiting.Signal()
	q.mu.Unlock()
	<-q.done
}

func (c *Cluster) observe(call func(Observer, Task), t Task) {
	if c.observer.to != nil {
		c.observer.add(func() { call(c.observer.to, t) })
	}
}
