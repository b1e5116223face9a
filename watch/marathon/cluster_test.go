package marathon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// cluster is a Marathon with several members, spoken to over HTTP on in-memory
// connections: inside of a synctest bubble its clock is the test's.
type cluster struct {
	t *testing.T

	mu      sync.Mutex
	leader  string
	members map[string]*pipeListener
	servers []*http.Server
	apps    map[string]string
	streams map[chan string]string
	// fault, if not nil, may answer in the place of a member.
	fault func(w http.ResponseWriter, r *http.Request) (handled bool)
	// auth is "user:password" that every request must have; empty for none.
	auth string
	// credentials seen by each member, and requests counted by path.
	credentials map[string]map[string]bool
	requests    map[string]int
	silent      bool
}

type pipeListener struct {
	name  string
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: l.name, Net: "pipe"} }

func newCluster(t *testing.T, members ...string) *cluster {
	c := &cluster{
		t: t, leader: members[0], members: map[string]*pipeListener{}, apps: map[string]string{},
		streams: map[chan string]string{}, credentials: map[string]map[string]bool{}, requests: map[string]int{},
	}
	for _, m := range members {
		c.start(m)
	}
	return c
}

func (c *cluster) start(member string) {
	l := &pipeListener{name: member, conns: make(chan net.Conn), done: make(chan struct{})}
	s := &http.Server{
		Handler:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { c.serve(member, w, r) }),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	c.mu.Lock()
	c.members[member] = l
	c.servers = append(c.servers, s)
	c.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

func (c *cluster) close() {
	c.mu.Lock()
	servers := c.servers
	c.mu.Unlock()
	for _, s := range servers {
		s.Close()
	}
}

func (c *cluster) dial(ctx context.Context, _, address string) (net.Conn, error) {
	c.mu.Lock()
	l := c.members[address]
	c.mu.Unlock()
	if l == nil {
		return nil, fmt.Errorf("dial %s: connection refused", address)
	}
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.done:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (c *cluster) serve(member string, w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	fault, auth, leader, silent := c.fault, c.auth, c.leader, c.silent
	c.requests[r.URL.Path]++
	if user, password, ok := r.BasicAuth(); ok {
		if c.credentials[member] == nil {
			c.credentials[member] = map[string]bool{}
		}
		c.credentials[member][user+":"+password] = true
	}
	c.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	if user, password, _ := r.BasicAuth(); auth != "" && user+":"+password != auth {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, "<html>no</html>")
		return
	}
	w.Header().Set("X-Marathon-Leader", "http://"+leader)
	path := r.URL.Path
	switch {
	case path == "/v2/info":
		fmt.Fprintf(w, `{"name":"marathon","version":"1.4.5","elected":%t,"leader":%q,"frameworkId":"f","http_config":{"http_port":8080,"https_port":8443}}`, member == leader, leader)
	case path == "/v2/leader":
		fmt.Fprintf(w, `{"leader":%q}`, leader)
	case path == "/v2/events" && member != leader:
		w.Header().Set("Location", "http://"+leader+"/v2/events?"+r.URL.RawQuery)
		w.WriteHeader(http.StatusFound)
	case path == "/v2/events":
		if r.Header.Get("Accept") != "text/event-stream" {
			http.Error(w, "<html>", http.StatusMethodNotAllowed)
			return
		}
		c.stream(w, r, silent)
	case path == "/v2/apps":
		c.mu.Lock()
		list := slices.Collect(maps.Values(c.apps))
		c.mu.Unlock()
		fmt.Fprintf(w, `{"apps":[%s]}`, strings.Join(list, ","))
	case strings.HasPrefix(path, "/v2/apps/"):
		id := strings.TrimPrefix(path, "/v2/apps")
		c.mu.Lock()
		app, ok := c.apps[id]
		c.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprintf(w, `{"message":"App '%s' does not exist"}`, id)
			return
		}
		fmt.Fprintf(w, `{"app":%s}`, app)
	default:
		http.NotFound(w, r)
	}
}

func (c *cluster) stream(w http.ResponseWriter, r *http.Request, silent bool) {
	w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
	events := make(chan string, 100_000)
	c.mu.Lock()
	c.streams[events] = r.Host
	c.mu.Unlock()
	defer func() { c.mu.Lock(); delete(c.streams, events); c.mu.Unlock() }()
	flush := func() { _ = http.NewResponseController(w).Flush() }
	fmt.Fprint(w, "event: event_stream_attached\r\ndata: {\"remoteAddress\":\"x\"}\r\n\r\n")
	flush()
	heartbeat := time.NewTicker(10 * time.Second)
	defer heartbeat.Stop()
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return
			}
			io.WriteString(w, e)
			for len(events) > 0 {
				io.WriteString(w, <-events)
			}
		case <-heartbeat.C:
			if silent {
				continue
			}
			io.WriteString(w, "\r\n")
		case <-r.Context().Done():
			return
		}
		flush()
	}
}

// send is an event to everybody who listens.
func (c *cluster) send(kind, data string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		s <- "event: " + kind + "\r\ndata: " + data + "\r\n\r\n"
	}
}

// cut ends every stream, as a leader does that is none any longer.
func (c *cluster) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.streams {
		close(s)
		delete(c.streams, s)
	}
}

func (c *cluster) set(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
}

// singleReads counts the reads of single apps.
func (c *cluster) singleReads() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for path, times := range c.requests {
		if strings.HasPrefix(path, "/v2/apps/") {
			n += times
		}
	}
	return n
}

// shown are the credentials that a member has seen.
func (c *cluster) shown(member string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.credentials[member]))
}

func (c *cluster) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[path]
}

// app is a document: host networking, one health check, tasks given as
// "id:port:state:results" with results one of "alive", "dead", "none".
func app(id string, tasks ...string) string {
	var all []string
	for _, spec := range tasks {
		f := strings.Split(spec, ":")
		results := map[string]string{"alive": `[{"alive":true}]`, "dead": `[{"alive":false}]`, "none": `[]`}[f[3]]
		all = append(all, fmt.Sprintf(`{"id":%q,"appId":%q,"host":"agent1","ports":[%s],"state":%q,"startedAt":"1999-01-01T00:00:00.000Z","healthCheckResults":%s}`, f[0], id, f[1], f[2], results))
	}
	return fmt.Sprintf(`{"id":%q,"ports":[9000],"env":{"TOKEN":{"secret":"s"},"SERVICE_NAME":"x"},"healthChecks":[{"protocol":"HTTP"}],"tasks":[%s]}`, id, strings.Join(all, ","))
}

// sink remembers what was published and reported.
type sink struct {
	mu    sync.Mutex
	part  *watch.Part
	parts int
	state watch.State
}

func (s *sink) Publish(p *watch.Part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.part = p
	s.parts++
}
func (s *sink) Withdraw(watch.Source) {}
func (s *sink) Report(st watch.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = st
}

func (s *sink) now() (*watch.Part, watch.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.part, s.state
}

// count is how many parts were published.
func (s *sink) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.parts
}

// String is the part in a line per task: its health, or its state if it does not
// run.
func (s *sink) String() string {
	p, _ := s.now()
	if p == nil {
		return "nothing published"
	}
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(p.Apps)) {
		if len(p.Apps[id].Tasks) == 0 {
			lines = append(lines, id)
		}
		for _, t := range p.Apps[id].Tasks {
			how := t.Health.String()
			if way, _ := routingOf(t.State); way == awaited || way == gone {
				if t.Health != watch.HealthCritical || t.Reason == "" {
					how += " although it is in "
				} else {
					how = ""
				}
				how += t.State
			}
			lines = append(lines, fmt.Sprintf("%s %s %s %s", id, t.ID, t.Addresses[0], how))
		}
	}
	return strings.Join(lines, "\n")
}

func (s *sink) is(t *testing.T, when string, want ...string) {
	t.Helper()
	if got := s.String(); got != strings.Join(want, "\n") {
		_, state := s.now()
		t.Fatalf("%s:\ngot:\n%s\nwant:\n%s\nstate: %+v", when, got, strings.Join(want, "\n"), state)
	}
}

func (s *sink) status(t *testing.T, when string, want watch.Status) watch.State {
	t.Helper()
	_, state := s.now()
	if state.Status != want {
		t.Fatalf("%s: %s, want %s: %+v", when, state.Status, want, state)
	}
	return state
}

// watching runs the test beside a watcher of the cluster, in a bubble of its
// own. Anything that still runs when the watcher has returned fails the test.
func watching(t *testing.T, members []string, prepare func(*cluster, *Config), test func(t *testing.T, c *cluster, s *sink)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, members...)
		config := Config{
			Datacenter: "dc1", dial: c.dial,
			lookup: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("10.0.0.1")}, nil
			},
		}
		for _, m := range members {
			config.URLs = append(config.URLs, "http://"+m)
		}
		if prepare != nil {
			prepare(c, &config)
		}
		w, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		s := &sink{}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); w.Run(ctx, s) }()
		defer func() {
			cancel()
			<-ended
			c.close()
		}()
		test(t, c, s)
	})
}

// after lets that much time pass and everything settle.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
