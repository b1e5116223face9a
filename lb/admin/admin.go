package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// Edge is what the admin interface shows. Its methods may be called at any time,
// from any goroutine.
type Edge interface {
	// Table that HAProxy runs; nil before the first.
	Table() *routing.Table
	// States of the sources.
	States() []watch.State
	// Ready says whether traffic can flow, and if not, what is waited for.
	Ready() (bool, string)
	// Status of HAProxy.
	Status() haproxy.Status
	// Events, newest first.
	Events() []haproxy.Event
	// Configuration is HAProxy's file as it was last written.
	Configuration() ([]byte, error)
	// Resync asks every source for everything again.
	Resync(ctx context.Context) error
	// Reload validates HAProxy's files and reloads it.
	Reload(ctx context.Context) error
}

// Handler serves the admin interface.
func Handler(edge Edge, gatherer prometheus.Gatherer, version string, log *slog.Logger) http.Handler {
	a := &api{edge: edge, version: version, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", a.healthz)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(gatherer, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /v1/routes", a.routes)
	mux.HandleFunc("GET /v1/services", a.services)
	mux.HandleFunc("GET /v1/sources", a.sources)
	mux.HandleFunc("GET /v1/findings", a.findings)
	mux.HandleFunc("GET /v1/events", a.events)
	mux.HandleFunc("GET /v1/status", a.status)
	mux.HandleFunc("GET /v1/explain", a.explain)
	mux.HandleFunc("GET /{$}", a.page)
	mux.HandleFunc("GET /_haproxy_health_check", a.healthCheck)
	mux.HandleFunc("GET /_haproxy_getconfig", a.getConfig)
	mux.HandleFunc("GET /_haproxy_getvhostmap", a.getMap(routing.ByHost))
	mux.HandleFunc("GET /_haproxy_getappmap", a.getMap(routing.ByAppID))
	mux.HandleFunc("GET /_haproxy_getpids", a.getPIDs)
	mux.HandleFunc("/_mlb_signal/hup", a.signal("resync", edge.Resync))
	mux.HandleFunc("/_mlb_signal/usr1", a.signal("reload", edge.Reload))
	return mux
}

type api struct {
	edge    Edge
	version string
	log     *slog.Logger
}

func (a *api) json(w http.ResponseWriter, status int, value any) {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		a.log.Error("encode answer", "error", err)
		http.Error(w, "the answer cannot be encoded", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

func text(w http.ResponseWriter, status int, format string, arguments ...any) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, format+"\n", arguments...)
}

// healthz is about mi-lb itself: it answers, so it lives. HAProxy serves on without it.
func (a *api) healthz(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok") }

func (a *api) readyz(w http.ResponseWriter, _ *http.Request) {
	if ok, why := a.edge.Ready(); !ok {
		text(w, http.StatusServiceUnavailable, "not ready: %s", why)
		return
	}
	text(w, http.StatusOK, "ready")
}

// table is the running one; before the first there is nothing to list yet, which is
// not the same as nothing.
func (a *api) table(w http.ResponseWriter) *routing.Table {
	table := a.edge.Table()
	if table == nil {
		a.json(w, http.StatusServiceUnavailable, map[string]string{"error": "no table runs in HAProxy yet; see /readyz"})
	}
	return table
}

// Routes is the answer of /v1/routes.
type Routes struct {
	Revision uint64             `json:"revision"`
	Ports    []routing.Port     `json:"ports"`
	Routes   []routing.Route    `json:"routes"`
	Backends []*routing.Backend `json:"backends"`
}

func (a *api) routes(w http.ResponseWriter, _ *http.Request) {
	if t := a.table(w); t != nil {
		a.json(w, http.StatusOK, Routes{Revision: t.Revision, Ports: t.Ports, Routes: t.Routes, Backends: t.Backends})
	}
}

func (a *api) services(w http.ResponseWriter, _ *http.Request) {
	if t := a.table(w); t != nil {
		a.json(w, http.StatusOK, orEmpty(t.Services))
	}
}

// Source is one row of /v1/sources.
type Source struct {
	watch.State
	// AgeSeconds since it last answered.
	AgeSeconds float64 `json:"ageSeconds"`
}

func (a *api) sources(w http.ResponseWriter, _ *http.Request) {
	all := []Source{}
	for _, s := range a.edge.States() {
		all = append(all, Source{State: s, AgeSeconds: s.Age(time.Now()).Seconds()})
	}
	a.json(w, http.StatusOK, all)
}

func (a *api) findings(w http.ResponseWriter, _ *http.Request) {
	if t := a.table(w); t != nil {
		a.json(w, http.StatusOK, orEmpty(t.Findings))
	}
}

func (a *api) events(w http.ResponseWriter, _ *http.Request) {
	a.json(w, http.StatusOK, orEmpty(a.edge.Events()))
}

// Status is the answer of /v1/status: everything in short.
type Status struct {
	Version  string         `json:"version"`
	Ready    bool           `json:"ready"`
	Waiting  string         `json:"waiting,omitempty"`
	HAProxy  haproxy.Status `json:"haproxy"`
	Sources  []Source       `json:"sources"`
	Services int            `json:"services"`
	Routes   int            `json:"routes"`
	Ports    int            `json:"ports"`
	Servers  int            `json:"servers"`
	Findings int            `json:"findings"`
}

func (a *api) status(w http.ResponseWriter, _ *http.Request) {
	s := Status{Version: a.version, HAProxy: a.edge.Status(), Sources: []Source{}}
	s.Ready, s.Waiting = a.edge.Ready()
	for _, state := range a.edge.States() {
		s.Sources = append(s.Sources, Source{State: state, AgeSeconds: state.Age(time.Now()).Seconds()})
	}
	if t := a.edge.Table(); t != nil {
		s.Services, s.Routes, s.Ports, s.Findings = len(t.Services), len(t.Routes), len(t.Ports), len(t.Findings)
		for _, b := range t.Backends {
			s.Servers += len(b.Servers)
		}
	}
	a.json(w, http.StatusOK, s)
}

func (a *api) explain(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	request := routing.Request{Host: query.Get("host"), Path: query.Get("path"), AppID: query.Get("app"), SNI: query.Get("sni")}
	if port := query.Get("port"); port != "" {
		n, err := strconv.Atoi(port)
		if err != nil || n < 1 || n > 65535 {
			a.json(w, http.StatusBadRequest, map[string]string{"error": "port is no number from 1 to 65535"})
			return
		}
		request.Port = n
	}
	if request == (routing.Request{}) || (request.Path != "" && request.Host == "") {
		a.json(w, http.StatusBadRequest, map[string]string{"error": "ask with ?host=…&path=…, ?port=…, ?app=… or ?sni=…"})
		return
	}
	if t := a.table(w); t != nil {
		a.json(w, http.StatusOK, routing.Explain(t, request))
	}
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// healthCheck is what load balancers in front of Marathon-lb ask.
func (a *api) healthCheck(w http.ResponseWriter, _ *http.Request) {
	if !a.edge.Status().Running {
		text(w, http.StatusServiceUnavailable, "HAProxy does not run")
		return
	}
	text(w, http.StatusOK, "ok")
}

func (a *api) getConfig(w http.ResponseWriter, _ *http.Request) {
	config, err := a.edge.Configuration()
	if err != nil {
		text(w, http.StatusServiceUnavailable, "%v", err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(config)
}

// getMap lists names and backends as Marathon-lb's map files do.
func (a *api) getMap(kind routing.RouteKind) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		t := a.table(w)
		if t == nil {
			return
		}
		var b strings.Builder
		for _, r := range t.Routes {
			if r.Kind == kind {
				path := strings.TrimSuffix(r.Path, "/")
				fmt.Fprintf(&b, "%s%s %s\n", r.Host, path, r.Backend)
			}
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(b.String()))
	}
}

func (a *api) getPIDs(w http.ResponseWriter, _ *http.Request) {
	s := a.edge.Status()
	if s.Worker == 0 {
		text(w, http.StatusServiceUnavailable, "HAProxy does not run")
		return
	}
	pids := []string{strconv.Itoa(s.Worker)}
	for _, pid := range s.OldWorkers {
		pids = append(pids, strconv.Itoa(pid))
	}
	text(w, http.StatusOK, "%s", strings.Join(pids, " "))
}

func (a *api) signal(name string, do func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(r.Context()); err != nil {
			a.log.Warn("asked by the admin interface", "what", name, "error", err)
			text(w, http.StatusInternalServerError, "%v", err)
			return
		}
		a.log.Info("asked by the admin interface", "what", name)
		text(w, http.StatusOK, "OK")
	}
}
