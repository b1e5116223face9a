package haproxy

import (
	"bufio"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/watch"
)

// state of the server of backend web, "" if it is not there.
func (e *edge) state(server *httptest.Server) (string, error) {
	servers, err := e.process.Runtime().Servers(e.t.Context())
	if err != nil {
		return "", err
	}
	for _, s := range servers {
		if s.Backend == "web" && s.Address.String() == server.Listener.Addr().String() {
			return s.State, nil
		}
	}
	return "", nil
}

func (e *edge) untilState(server *httptest.Server, what string, fits func(state string) bool) {
	e.t.Helper()
	haproxytest.Until(e.t, what, func() error {
		state, err := e.state(server)
		if err == nil && !fits(state) {
			err = fmt.Errorf("it is %q", state)
		}
		return err
	})
}

func ready(state string) bool { return state == runtime.Ready }

// streams answers with a line every few milliseconds until its client is gone.
func streams(t *testing.T) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = fmt.Fprintln(w, "more")
			w.(http.Flusher).Flush()
			time.Sleep(5 * time.Millisecond)
		}
	}))
	t.Cleanup(server.Close)
	return server
}

func TestTheSessionsOfAVanishedInstanceGoOnForTheGraceAndAreThenCut(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Drain = 3 * time.Second })
	old, next := streams(t), says(t, "next")
	e.want(world(service("web", nil, old)))
	e.untilState(old, "it serves", ready)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", e.http), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "web.example.com"
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	read := func(n int) bool {
		for range n {
			if !lines.Scan() {
				return false
			}
		}
		return true
	}
	if !read(1) {
		t.Fatalf("no answer: %v", lines.Err())
	}
	replaced := service("web", nil, next)
	replaced.Instances[0].ID = "another" // with the same it would have moved
	e.want(world(replaced))
	e.untilState(old, "it drains", func(state string) bool { return state == runtime.Drain })
	for range 5 {
		e.until("web.example.com", 200, "next")
	}
	if !read(10) {
		t.Errorf("the session was cut while the instance drains: %v", lines.Err())
	}
	for lines.Scan() {
	}
	if state, err := e.state(old); err != nil || state == runtime.Drain || state == runtime.Ready {
		t.Errorf("the session ended while the instance was %q, %v", state, err)
	}
	e.until("web.example.com", 200, "next")
}

func TestAnInstanceDrainsBeforeAnyFileIsWritten(t *testing.T) {
	e := newEdge(t, func(o *Options) { o.Settle = time.Hour })
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a, b)))
	e.untilState(a, "a serves", ready)
	e.untilState(b, "b serves", ready)
	written := func() os.FileInfo {
		info, err := os.Stat(filepath.Join(render.Current(e.options.Settings.Dir), render.ConfigFile))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	before := written()
	maintained := service("web", nil, a, b)
	maintained.Instances[0].Health = watch.HealthMaintenance
	for name, all := range map[string]map[string]*watch.Service{
		"maintenance": world(maintained), "deregistration": world(service("web", nil, b)),
	} {
		e.want(world(service("web", nil, a, b)))
		e.untilState(a, "a serves", ready)
		if name == "deregistration" {
			// The name of an instance is that of its identity, not of its place in a list.
			all["web"].Instances[0].ID = "web-1"
		}
		e.want(all)
		e.untilState(a, name+" drains it", func(state string) bool { return !ready(state) })
		for range 4 {
			e.until("web.example.com", 200, "b")
		}
	}
	if after := written(); !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Error("the files were written")
	}
}
