package bootstrap

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
)

// longestElection is how long a program may have no leader: ZooKeeper and Consul
// need a few seconds, on a machine that is busy with twelve some more.
const longestElection = 30 * time.Second

// probe uses a platform all the time, as its users do.
type probe struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	uses   []*use
}

// use is one way to use a platform.
type use struct {
	name string

	mu      sync.Mutex
	good    int
	failing time.Time // since; zero while it works
	longest time.Duration
	last    error // of the longest
}

// startProbe starts one that writes to ZooKeeper and Consul, reads Marathon and
// requests through both edges.
func (p *platform) startProbe(t *testing.T) *probe {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b := &probe{cancel: cancel}

	var servers []string
	for _, role := range roles[:3] {
		servers = append(servers, p.hosts.Machine("dc1-"+role).Address.String()+":2181")
	}
	session, _, err := zk.Connect(servers, 10*time.Second, zk.WithLogger(silent{}))
	if err != nil {
		t.Fatal(err)
	}
	if err := session.AddAuth("digest", []byte("super:"+p.secret("zookeeper/dc1/super"))); err != nil {
		t.Fatal(err)
	}
	const node = "/mi-lb-probe"
	eventually(t, "ZooKeeper takes the probe's znode", func(context.Context) error {
		_, err := session.Create(node, nil, 0, zk.AuthACL(zk.PermAll))
		if errors.Is(err, zk.ErrNodeExists) {
			err = nil
		}
		return err
	})
	b.use(ctx, "write to ZooKeeper", func(context.Context) error {
		_, err := session.Set(node, []byte(time.Now().String()), -1)
		return err
	})

	consul := p.dial(t, p.hosts.Machine("dc1-edge-1")).HTTPClient("tcp", "127.0.0.1:8500")
	token := p.secret("consul/token/management/secret")
	b.use(ctx, "write to Consul", func(ctx context.Context) error {
		answer, err := consulAnswer(ctx, consul, token, http.MethodPut, "/v1/kv/mi-lb-probe", []byte(time.Now().String()))
		if err == nil && answer != "true" {
			err = errors.New(answer)
		}
		return err
	})

	password := p.secret("marathon/dc1/mi-lb")
	b.use(ctx, "read Marathon", func(ctx context.Context) error {
		var failed error
		for _, role := range roles[:3] {
			err := get(ctx, "http://"+p.hosts.Machine("dc1-"+role).Address.String()+":8080/v2/apps", "mi-lb", password)
			if err == nil {
				return nil
			}
			failed = errors.Join(failed, err)
		}
		return failed
	})
	for _, d := range datacenters {
		b.use(ctx, "request through "+d+"'s edge", func(ctx context.Context) error { return p.ask(ctx, d+"-edge-1", "here.apps.test", "here\n") })
	}
	t.Cleanup(func() {
		b.stop()
		session.Close()
	})
	return b
}

func get(ctx context.Context, url, user, password string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	request.SetBasicAuth(user, password)
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, response.Status)
	}
	return nil
}

type silent struct{}

func (silent) Printf(string, ...any) {}

// use does something again and again until the probe ends.
func (b *probe) use(ctx context.Context, name string, do func(context.Context) error) {
	u := &use{name: name}
	b.uses = append(b.uses, u)
	b.done.Go(func() {
		for ctx.Err() == nil {
			once, cancel := context.WithTimeout(ctx, 5*time.Second)
			begun := time.Now()
			err := do(once)
			cancel()
			if ctx.Err() == nil {
				u.note(begun, err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
}

func (u *use) note(begun time.Time, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err == nil {
		u.good++
		u.failing = time.Time{}
		return
	}
	if u.failing.IsZero() {
		u.failing = begun
	}
	if d := time.Since(u.failing); d > u.longest {
		u.longest, u.last = d, err
	}
}

func (b *probe) stop() {
	b.cancel()
	b.done.Wait()
}

// reset forgets what was so far.
func (b *probe) reset() {
	for _, u := range b.uses {
		u.mu.Lock()
		u.good, u.longest, u.last, u.failing = 0, 0, nil, time.Time{}
		u.mu.Unlock()
	}
}

// report fails the test if anything failed for longer than an election takes; edges
// are to have no failure at all.
func (b *probe) report(t *testing.T) {
	t.Helper()
	for _, u := range b.uses {
		u.mu.Lock()
		t.Logf("%s: %d times, failed for at most %s: %v", u.name, u.good, u.longest.Round(10*time.Millisecond), u.last)
		if u.longest > longestElection || u.good == 0 {
			t.Errorf("%s failed for %s: %v", u.name, u.longest, u.last)
		}
		u.mu.Unlock()
	}
}
