package master

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// backlog is how many lines may wait for whoever reads a stream.
const backlog = 1024

// admit says whether a request may register; otherwise it is answered.
func (m *master) admit(w http.ResponseWriter, r *http.Request, needed bool, list []acl) bool {
	principal, ok := m.login(r)
	switch {
	case needed && !ok:
		m.log.Warn("authentication failed", "principal", principal, "from", r.RemoteAddr)
		http.Error(w, "Authentication failed", http.StatusUnauthorized)
	case !m.settings.acls.allows(list, principal):
		m.log.Warn("not authorized", "principal", principal, "path", r.URL.Path)
		http.Error(w, "Not authorized", http.StatusForbidden)
	case !m.isLeader():
		http.Error(w, "Not the leading master", http.StatusServiceUnavailable)
	case !m.replica.readable():
		http.Error(w, "The registry has not recovered", http.StatusServiceUnavailable)
	default:
		return true
	}
	return false
}

// serveAgent registers an agent for as long as it listens.
func (m *master) serveAgent(w http.ResponseWriter, r *http.Request) {
	if !m.admit(w, r, m.settings.agentsLogin, m.settings.acls.RegisterAgents) {
		return
	}
	var info wire.Agent
	if err := json.NewDecoder(r.Body).Decode(&info); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	// A master talks back to the address that an agent gives.
	if err := reach(r.Context(), info); err != nil {
		m.log.Warn("agent cannot be reached", "hostname", info.Hostname, "error", err)
		http.Error(w, "The agent cannot be reached: "+err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	for _, other := range m.agents {
		if other.info.IP == info.IP && other.info.Port == info.Port && other.info.ID != info.ID {
			m.remove(other, "TASK_LOST") // the machine has a new agent
		}
	}
	a := m.agents[info.ID]
	if a == nil {
		if info.ID == "" {
			info.ID = fmt.Sprintf("%s-S%d", m.info.ID, m.nextAgent)
		}
		m.nextAgent++
		a = &agent{position: m.nextAgent}
		m.agents[info.ID] = a
	}
	if a.away != nil {
		a.away.Stop()
	}
	lines := make(chan wire.ToAgent, backlog)
	lines <- wire.ToAgent{Registered: info.ID}
	a.info, a.active, a.lines, a.seen = info, true, lines, time.Now()
	a.tasks = map[string]wire.TaskStatus{}
	for _, t := range info.Tasks {
		a.tasks[t.TaskID] = t
	}
	if a.drain != "" {
		for taskID := range a.tasks {
			lines <- wire.ToAgent{Kill: &wire.Kill{TaskID: taskID, AgentID: info.ID, Grace: 3}}
		}
	}
	m.drained(a)
	m.log.Info("registered agent", "id", info.ID, "hostname", info.Hostname, "tasks", len(info.Tasks))
	m.offer()
	m.mu.Unlock()
	wire.Serve(w, r, lines, wire.ToAgent{Ping: true})
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.lines != lines {
		return // it has registered again
	}
	a.active, a.lines = false, nil
	m.log.Warn("agent is out of contact", "id", info.ID, "hostname", info.Hostname)
	a.away = time.AfterFunc(m.settings.agentTimeout, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if !a.active && m.agents[info.ID] == a {
			m.remove(a, "TASK_LOST")
		}
	})
	m.offer()
}

func reach(ctx context.Context, info wire.Agent) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(info.IP, strconv.Itoa(info.Port))+"/health", nil)
	if err != nil {
		return err
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// remove forgets an agent, and says what that means for its tasks. The lock is held.
func (m *master) remove(a *agent, state string) {
	m.log.Warn("removed agent", "id", a.info.ID, "hostname", a.info.Hostname)
	delete(m.agents, a.info.ID)
	for _, t := range a.tasks {
		t.State, t.Message = state, "the agent is removed"
		m.tell(wire.ToFramework{Update: &t})
	}
	m.offer()
}

// send gives a line to an agent; one that is away gets none. The lock is held.
func (m *master) send(a *agent, line wire.ToAgent) bool {
	if a.lines == nil {
		return false
	}
	select {
	case a.lines <- line:
		return true
	default:
		return false
	}
}

func (m *master) tell(line wire.ToFramework) {
	if m.framework == nil {
		return
	}
	select {
	case m.framework.lines <- line:
	default: // it reads too slowly, and learns everything when it is back
		close(m.framework.lines)
		m.framework = nil
	}
}

// offer tells the framework what agents there are. The lock is held.
func (m *master) offer() {
	agents := []wire.Agent{}
	for _, a := range m.sorted() {
		info := a.info
		info.Active = a.active && a.drain == ""
		info.Tasks = []wire.TaskStatus{}
		for _, t := range a.tasks {
			info.Tasks = append(info.Tasks, t)
		}
		agents = append(agents, info)
	}
	m.tell(wire.ToFramework{Agents: agents, Ping: true})
}

// drained finishes draining when nothing is left. The lock is held.
func (m *master) drained(a *agent) {
	if a.drain == "DRAINING" && len(a.tasks) == 0 {
		a.drain = "DRAINED"
	}
}

// serveUpdate takes what became of a task.
func (m *master) serveUpdate(w http.ResponseWriter, r *http.Request) {
	if !m.admit(w, r, m.settings.agentsLogin, m.settings.acls.RegisterAgents) {
		return
	}
	var update wire.TaskStatus
	if err := json.NewDecoder(r.Body).Decode(&update); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	a := m.agents[update.AgentID]
	if a == nil {
		http.Error(w, "Unknown agent", http.StatusNotFound)
		return
	}
	if Terminal(update.State) {
		delete(a.tasks, update.TaskID)
	} else {
		a.tasks[update.TaskID] = update
	}
	m.drained(a)
	m.tell(wire.ToFramework{Update: &update})
}

// Terminal says whether a state is a task's last.
func Terminal(state string) bool {
	switch state {
	case "TASK_FINISHED", "TASK_FAILED", "TASK_KILLED", "TASK_ERROR", "TASK_LOST", "TASK_GONE", "TASK_DROPPED", "TASK_GONE_BY_OPERATOR":
		return true
	}
	return false
}

// serveFramework serves the one framework there is.
func (m *master) serveFramework(w http.ResponseWriter, r *http.Request) {
	if !m.admit(w, r, m.settings.frameworksLogin, m.settings.acls.RegisterFrameworks) {
		return
	}
	var subscribe wire.Subscribe
	if err := json.NewDecoder(r.Body).Decode(&subscribe); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if subscribe.ID == "" {
		subscribe.ID = m.info.ID + "-0000"
	}
	m.mu.Lock()
	if m.framework != nil {
		close(m.framework.lines) // the scheduler failed over
	}
	f := &framework{id: subscribe.ID, name: subscribe.Name, lines: make(chan wire.ToFramework, backlog)}
	f.lines <- wire.ToFramework{Subscribed: f.id}
	m.framework = f
	m.log.Info("subscribed framework", "id", f.id, "name", f.name)
	m.offer()
	m.mu.Unlock()
	wire.Serve(w, r, f.lines, wire.ToFramework{Ping: true})
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.framework == f {
		m.framework = nil
		m.log.Warn("framework is out of contact", "id", f.id)
	}
}

// serveCall passes on what the framework wants.
func (m *master) serveCall(w http.ResponseWriter, r *http.Request) {
	if !m.admit(w, r, m.settings.frameworksLogin, m.settings.acls.RegisterFrameworks) {
		return
	}
	var call wire.Call
	if err := json.NewDecoder(r.Body).Decode(&call); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case call.Launch != nil:
		a := m.agents[call.Launch.AgentID]
		if a == nil || !a.active || a.drain != "" || !m.send(a, wire.ToAgent{Launch: call.Launch}) {
			http.Error(w, "Task launched with invalid offers: the agent is not there", http.StatusConflict)
			return
		}
		a.tasks[call.Launch.ID] = wire.TaskStatus{TaskID: call.Launch.ID, AgentID: call.Launch.AgentID, State: "TASK_STAGING"}
	case call.Kill != nil:
		a := m.agents[call.Kill.AgentID]
		if a == nil || !m.send(a, wire.ToAgent{Kill: call.Kill}) {
			http.Error(w, "the agent is not there", http.StatusConflict)
			return
		}
	}
}
