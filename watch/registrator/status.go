package registrator

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/mi-lb/mi-lb/watch"
)

// Status is how the registrator is, for people and for health checks.
type Status struct {
	// Docker and Consul say why they are out of reach; empty while they are not.
	Docker string `json:"docker,omitempty"`
	Consul string `json:"consul,omitempty"`
	// Known is set once containers and the agent's services have been read.
	Known      bool `json:"known"`
	Containers int  `json:"containers"`
	Services   int  `json:"services"`
	// Pending counts services that differ from what the agent has.
	Pending int `json:"pending"`
	// Refused has what the agent refused, by service id.
	Refused  map[string]string `json:"refused,omitempty"`
	Findings []watch.Finding   `json:"findings,omitempty"`
}

// Ready says whether the agent has what containers ask for, as far as it lets
// itself be written to; if not, why.
func (s Status) Ready() (bool, string) {
	switch {
	case s.Docker != "":
		return false, "Docker: " + s.Docker
	case s.Consul != "":
		return false, "Consul: " + s.Consul
	case !s.Known:
		return false, "not compared yet"
	case s.Pending > len(s.Refused):
		return false, fmt.Sprintf("%d services to be written", s.Pending-len(s.Refused))
	}
	return true, ""
}

type statusBox struct {
	mu     sync.Mutex
	status Status
}

func (b *statusBox) note(containers, services, pending int, refused map[string]refusal) {
	texts := make(map[string]string, len(refused))
	for id, r := range refused {
		texts[id] = r.err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Containers, b.status.Services, b.status.Pending, b.status.Refused = containers, services, pending, texts
}

func (b *statusBox) setFindings(findings []watch.Finding) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Findings = findings
}

func (b *statusBox) setReach(docker, consul error, known bool) {
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status.Docker, b.status.Consul, b.status.Known = text(docker), text(consul), known
}

// Status is how the registrator is now.
func (r *Registrator) Status() Status {
	r.status.mu.Lock()
	defer r.status.mu.Unlock()
	s := r.status.status
	s.Refused = maps.Clone(s.Refused)
	s.Findings = slices.Clone(s.Findings)
	return s
}

// Handler serves /healthz (200 while it runs), /readyz (200 while the agent has
// what containers ask for, else 503 and why) and /v1/status (JSON).
func (r *Registrator) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready, why := r.Status().Ready(); !ready {
			http.Error(w, why, http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(r.Status()); err != nil {
			r.log.Debug("status was not sent", "error", err)
		}
	})
	return mux
}
