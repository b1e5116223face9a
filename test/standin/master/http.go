package master

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/wire"
)

func (m *master) handler() http.Handler {
	mux := http.NewServeMux()
	health := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	both := func(path string, serve http.HandlerFunc) {
		mux.HandleFunc(path, serve)
		mux.HandleFunc("/master"+path, serve)
	}
	both("/health", health)
	both("/redirect", m.redirect)
	mux.HandleFunc("/metrics/snapshot", m.readonly(m.serveMetrics))
	both("/state", m.readonly(m.led(m.serveState)))
	both("/state-summary", m.readonly(m.led(m.serveState)))
	both("/api/v1", m.readwrite(m.led(m.serveAPI)))
	mux.HandleFunc("POST /standin/agent", m.serveAgent)
	mux.HandleFunc("POST /standin/update", m.serveUpdate)
	mux.HandleFunc("POST /standin/framework", m.serveFramework)
	mux.HandleFunc("POST /standin/call", m.serveCall)
	return mux
}

func (m *master) authenticated(needed bool, realm string, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if needed {
			if _, ok := m.login(r); !ok {
				w.Header().Set("WWW-Authenticate", `Basic realm="`+realm+`"`)
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
		}
		next(w, r)
	}
}

func (m *master) readonly(next http.HandlerFunc) http.HandlerFunc {
	return m.authenticated(m.settings.readonly, "mesos-master-readonly", next)
}

func (m *master) readwrite(next http.HandlerFunc) http.HandlerFunc {
	return m.authenticated(m.settings.readwrite, "mesos-master-readwrite", next)
}

// led has requests answered by the leader only.
func (m *master) led(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !m.isLeader() {
			m.redirect(w, r)
			return
		}
		if !m.replica.readable() {
			http.Error(w, "Master has not finished recovery", http.StatusServiceUnavailable)
			return
		}
		next(w, r)
	}
}

func (m *master) redirect(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	leader := m.leader
	m.mu.Unlock()
	if leader == nil {
		http.Error(w, "No leader elected", http.StatusServiceUnavailable)
		return
	}
	path := r.URL.RequestURI()
	if strings.HasSuffix(r.URL.Path, "/redirect") {
		path = ""
	}
	w.Header().Set("Location", "//"+net.JoinHostPort(leader.Hostname, strconv.Itoa(leader.Port))+path)
	w.WriteHeader(http.StatusTemporaryRedirect)
}

func answer(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(encode(value)) // the client's loss
}

func (m *master) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	recovered, size := m.replica.metrics()
	metrics := map[string]float64{
		"registrar/log/recovered": float64(recovered), "registrar/log/ensemble_size": float64(size),
		"master/uptime_secs": time.Since(m.started).Seconds(),
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	elected, active, inactive, frameworks := 0.0, 0.0, 0.0, 0.0
	if m.elected {
		elected = 1
	}
	for _, a := range m.agents {
		if a.active {
			active++
		} else {
			inactive++
		}
	}
	if m.framework != nil {
		frameworks = 1
	}
	metrics["master/elected"], metrics["master/slaves_active"], metrics["master/slaves_inactive"] = elected, active, inactive
	metrics["master/slaves_connected"], metrics["master/frameworks_active"] = active, frameworks
	answer(w, metrics)
}

func (m *master) serveState(w http.ResponseWriter, _ *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slaves := []map[string]any{}
	for _, a := range m.sorted() {
		slaves = append(slaves, map[string]any{
			"id": a.info.ID, "hostname": a.info.Hostname, "port": a.info.Port, "active": a.active,
			"pid": fmt.Sprintf("slave(1)@%s:%d", a.info.IP, a.info.Port), "attributes": a.info.Attributes, "deactivated": a.drain != "",
		})
	}
	frameworks := []map[string]any{}
	if f := m.framework; f != nil {
		frameworks = append(frameworks, map[string]any{"id": f.id, "name": f.name, "active": true})
	}
	leader := ""
	if m.leader != nil {
		leader = m.leader.PID
	}
	answer(w, map[string]any{
		"version": Version, "id": m.info.ID, "pid": m.info.PID, "hostname": m.info.Hostname, "leader": leader,
		"cluster": m.settings.cluster, "activated_slaves": len(slaves), "slaves": slaves, "frameworks": frameworks,
		"elected_time": float64(m.electedAt.UnixNano()) / 1e9, "start_time": float64(m.started.UnixNano()) / 1e9,
	})
}

func (m *master) sorted() []*agent {
	var all []*agent
	for _, a := range m.agents {
		all = append(all, a)
	}
	slices.SortFunc(all, func(x, y *agent) int { return x.position - y.position })
	return all
}

type id struct {
	Value string `json:"value"`
}

type apiCall struct {
	Type  string `json:"type"`
	Drain *struct {
		AgentID id `json:"agent_id"`
		Grace   *struct {
			Seconds int64 `json:"seconds"`
		} `json:"max_grace_period"`
		MarkGone bool `json:"mark_gone"`
	} `json:"drain_agent"`
	Reactivate *struct {
		AgentID id `json:"agent_id"`
	} `json:"reactivate_agent"`
	Gone *struct {
		AgentID id `json:"agent_id"`
	} `json:"mark_agent_gone"`
}

func (m *master) serveAPI(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "Expecting 'POST' request", http.StatusMethodNotAllowed)
		return
	}
	var call apiCall
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&call); err != nil {
		http.Error(w, "Failed to convert JSON into Call protobuf: "+err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch call.Type {
	case "GET_HEALTH":
		answer(w, map[string]any{"type": call.Type, "get_health": map[string]bool{"healthy": true}})
	case "GET_MASTER":
		answer(w, map[string]any{"type": call.Type, "get_master": map[string]any{"master_info": m.info}})
	case "GET_AGENTS":
		agents := []map[string]any{}
		for _, a := range m.sorted() {
			document := map[string]any{
				"active": a.active && a.drain == "", "deactivated": a.drain != "", "version": Version, "pid": fmt.Sprintf("slave(1)@%s:%d", a.info.IP, a.info.Port),
				"agent_info": map[string]any{"id": id{a.info.ID}, "hostname": a.info.Hostname, "port": a.info.Port},
			}
			if a.drain != "" {
				document["drain_info"] = map[string]any{"state": a.drain, "config": map[string]any{}}
			}
			agents = append(agents, document)
		}
		answer(w, map[string]any{"type": call.Type, "get_agents": map[string]any{"agents": agents}})
	case "DRAIN_AGENT":
		if call.Drain == nil || m.agents[call.Drain.AgentID.Value] == nil {
			http.Error(w, "Unknown agent", http.StatusBadRequest)
			return
		}
		a := m.agents[call.Drain.AgentID.Value]
		grace := 3.0
		if call.Drain.Grace != nil {
			grace = float64(call.Drain.Grace.Seconds)
		}
		a.drain = "DRAINING"
		for taskID := range a.tasks {
			m.send(a, wire.ToAgent{Kill: &wire.Kill{TaskID: taskID, AgentID: a.info.ID, Grace: grace}})
		}
		m.drained(a)
		m.offer()
		w.WriteHeader(http.StatusOK)
	case "REACTIVATE_AGENT":
		if call.Reactivate == nil || m.agents[call.Reactivate.AgentID.Value] == nil {
			http.Error(w, "Unknown agent", http.StatusBadRequest)
			return
		}
		m.agents[call.Reactivate.AgentID.Value].drain = ""
		m.offer()
		w.WriteHeader(http.StatusOK)
	case "MARK_AGENT_GONE":
		if call.Gone == nil || m.agents[call.Gone.AgentID.Value] == nil {
			http.Error(w, "Unknown agent", http.StatusNotFound)
			return
		}
		a := m.agents[call.Gone.AgentID.Value]
		m.send(a, wire.ToAgent{Shutdown: "Agent has been marked gone"})
		m.remove(a, "TASK_GONE_BY_OPERATOR")
		w.WriteHeader(http.StatusOK)
	default:
		http.Error(w, "Failed to validate master::Call: call type '"+call.Type+"' is not one that the stand-in knows", http.StatusBadRequest)
	}
}
