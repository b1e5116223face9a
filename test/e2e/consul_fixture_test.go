package e2e

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/watch"
)

// consulURL is what mi-lb is configured with.
func consulURL(a *consul.Agent) string { return "http://" + a.HTTPAddress() }

// webUnderLoad are two instances of the service web in Consul, an edge that watches it
// through the address, and clients that ask for web.
func webUnderLoad(t *testing.T, agent *consul.Agent, address string) (e *edge.Edge, one, two *edge.Backend, load *edge.Load) {
	t.Helper()
	one, two = edge.StartBackend(t, "one"), edge.StartBackend(t, "two")
	register(t, agent, "web", one)
	register(t, agent, "web", two)
	e = startEdge(t, edge.Options{Consul: address})
	load = e.Load("web.test")
	load.WaitServedBy("one", "two")
	return e, one, two, load
}

// waitStale returns when the source is shown as stale, with an age and an error that
// contains the text, in the API and in metrics.
func waitStale(t *testing.T, e *edge.Edge, source, says string) {
	t.Helper()
	edge.Wait(t, fmt.Sprintf("%s stale with %q", source, says), func() error {
		s := e.Source(source)
		if s.Status != watch.Stale || s.AgeSeconds <= 0 || !strings.Contains(s.LastError+s.Detail, says) {
			return fmt.Errorf("it is %+v", s)
		}
		if e.Metric("mi_lb_source_current", "source", source) != 0 || e.Metric("mi_lb_source_age_seconds", "source", source) <= 0 {
			return errors.New("its metrics say that it is current")
		}
		return nil
	})
}

func waitCurrent(t *testing.T, e *edge.Edge, source string) {
	t.Helper()
	e.WaitSource(source, watch.Current)
	edge.Wait(t, source+" current in metrics", func() error {
		if e.Metric("mi_lb_source_current", "source", source) != 1 {
			return errors.New("mi_lb_source_current is 0")
		}
		return nil
	})
}

// proxy stands between mi-lb and an agent and does to answers what the test says.
type proxy struct {
	*httptest.Server
	mu    sync.Mutex
	fault fault
}

// fault is what becomes of requests: serve answers them itself, answer changes the
// agent's answer. Either may be nil.
type fault struct {
	serve  http.HandlerFunc
	answer func(*http.Response)
}

func startProxy(t *testing.T, a *consul.Agent) *proxy {
	t.Helper()
	p := &proxy{}
	back := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: a.HTTPAddress()})
	back.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(io.Discard, nil), slog.LevelInfo)
	back.ModifyResponse = func(r *http.Response) error {
		if answer := p.current().answer; answer != nil {
			answer(r)
		}
		return nil
	}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if serve := p.current().serve; serve != nil {
			serve(w, r)
			return
		}
		back.ServeHTTP(w, r)
	}))
	p.Config.ErrorLog = back.ErrorLog
	t.Cleanup(func() {
		p.CloseClientConnections()
		p.Close()
	})
	return p
}

func (p *proxy) current() fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}

func (p *proxy) set(f fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// refuse answers everything with a status, as Consul words it.
func refuse(code int, body string) fault {
	return fault{serve: func(w http.ResponseWriter, _ *http.Request) { http.Error(w, body, code) }}
}

// garble replaces the bodies of the catalog.
func garble(body func(path string) string, index string) fault {
	return fault{answer: func(r *http.Response) {
		path := r.Request.URL.Path
		if !strings.Contains(path, "/v1/health") && !strings.Contains(path, "/v1/catalog") {
			return
		}
		r.Body.Close()
		r.Body = io.NopCloser(strings.NewReader(body(path)))
		r.ContentLength = -1
		r.Header.Del("Content-Length")
		if index != "" {
			r.Header.Set("X-Consul-Index", index)
		}
	}}
}

// empty is how the catalog says that there is nothing.
func empty(path string) string {
	switch {
	case strings.HasSuffix(path, "/catalog/services"):
		return "{}"
	case strings.Contains(path, "/node-services/"):
		return "null"
	}
	return "[]"
}

// wake makes the agent answer the long-polls, so that they meet the proxy's fault.
func wake(t *testing.T, a *consul.Agent, b *edge.Backend) {
	t.Helper()
	register(t, a, "waker", b, func(r *api.AgentServiceRegistration) {
		r.ID, r.Check = "waker", nil
		r.Tags = []string{fmt.Sprint(b.Requests())}
	})
}
