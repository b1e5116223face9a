package marathon

import (
	"bytes"
	"encoding/json"
	"slices"
	"sync"
	"time"
)

// event is one of the event stream, in the forms that streams ask for.
type event struct {
	kind  string
	light []byte
	full  func() []byte // nil where it is the same
}

// frame is the event as it goes over the wire: CRLF, no id, no retry.
func (e event) frame(full bool) []byte {
	data := e.light
	if full && e.full != nil {
		data = e.full()
	}
	return slices.Concat([]byte("event: "), []byte(e.kind), []byte("\r\ndata: "), data, []byte("\r\n\r\n"))
}

// hub hands events to the streams that are attached.
type hub struct {
	buffer     int
	closesSlow bool

	mu      sync.Mutex
	streams map[*stream]bool
	silent  bool
	dropped []dropRule
}

type dropRule struct {
	kinds []string // none: any
	left  int      // negative: without end
}

// stream is one client's.
type stream struct {
	kinds  []string // none: all
	full   bool
	events chan []byte
	closed chan struct{} // the server hangs up
	once   sync.Once
}

func (s *stream) hangUp() { s.once.Do(func() { close(s.closed) }) }

func newHub(buffer int, closesSlow bool) *hub {
	return &hub{buffer: buffer, closesSlow: closesSlow, streams: map[*stream]bool{}}
}

// attach opens a stream; all streams are told, the new one before anything else.
func (h *hub) attach(kinds []string, full bool, attached event) *stream {
	s := &stream{kinds: kinds, full: full, events: make(chan []byte, h.buffer), closed: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.streams[s] = true
	h.deliver(attached)
	return s
}

func (h *hub) detach(s *stream) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.streams, s)
}

// hangUp closes every stream.
func (h *hub) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.streams {
		s.hangUp()
		delete(h.streams, s)
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.streams)
}

// silence makes streams stay open without a byte; events meanwhile are lost.
func (h *hub) silence(silent bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.silent = silent
}

func (h *hub) isSilent() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.silent
}

func (h *hub) drop(rule dropRule) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = append(h.dropped, rule)
}

func (h *hub) dropNothing() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropped = nil
}

func (h *hub) publish(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deliver(e)
}

func (h *hub) deliver(e event) {
	if h.silent || h.drops(e.kind) {
		return
	}
	var frames [2][]byte // light and full, made when first wanted
	for s := range h.streams {
		if len(s.kinds) > 0 && !slices.Contains(s.kinds, e.kind) {
			continue
		}
		form := 0
		if s.full {
			form = 1
		}
		if frames[form] == nil {
			frames[form] = e.frame(s.full)
		}
		select {
		case s.events <- frames[form]:
		default:
			if h.closesSlow {
				s.hangUp()
				delete(h.streams, s)
			}
		}
	}
}

func (h *hub) drops(kind string) bool {
	for i := range h.dropped {
		rule := &h.dropped[i]
		if rule.left == 0 || len(rule.kinds) > 0 && !slices.Contains(rule.kinds, kind) {
			continue
		}
		rule.left--
		return true
	}
	return false
}

// timestamp is the form of all times in Marathon's documents.
func timestamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z07:00") }

// object renders pairs of keys and values in their order.
func object(pairs ...any) json.RawMessage {
	var buffer bytes.Buffer
	buffer.WriteByte('{')
	for i := 0; i+1 < len(pairs); i += 2 {
		if i > 0 {
			buffer.WriteByte(',')
		}
		buffer.Write(mustMarshal(pairs[i]))
		buffer.WriteByte(':')
		buffer.Write(mustMarshal(pairs[i+1]))
	}
	buffer.WriteByte('}')
	return buffer.Bytes()
}

// eventObject renders an event's fields with those that all events have.
func eventObject(kind string, at time.Time, pairs []any) json.RawMessage {
	return object(append(slices.Clone(pairs), "eventType", kind, "timestamp", timestamp(at))...)
}

// publish sends an event to all streams; pairs are its own keys and values.
func (c *Cluster) publish(kind string, pairs ...any) {
	if c.hub.count() > 0 { // rendering thousands for nobody takes its time
		c.hub.publish(newEvent(kind, pairs...))
	}
}

func newEvent(kind string, pairs ...any) event {
	return event{kind: kind, light: eventObject(kind, time.Now(), pairs)}
}

func (c *Cluster) publishStatus(t *task, message string) {
	c.publish("status_update_event",
		"slaveId", t.agent.ID, "taskId", t.id, "taskStatus", t.state, "message", message,
		"appId", t.app, "host", t.agent.Hostname, "ipAddresses", t.ipAddresses(), "ports", t.ports,
		"version", t.version)
	if c.release.instances() {
		c.publish("instance_changed_event",
			"instanceId", t.instanceID, "condition", condition(t.state), "runSpecId", t.app,
			"agentId", t.agent.ID, "host", t.agent.Hostname, "runSpecVersion", t.version)
	}
}

// condition is Marathon's own word for a task state.
func condition(state string) string {
	switch state {
	case stateStaging:
		return "Staging"
	case stateStarting:
		return "Starting"
	case stateRunning:
		return "Running"
	case stateKilling:
		return "Killing"
	case stateKilled:
		return "Killed"
	case stateFailed:
		return "Failed"
	case stateFinished:
		return "Finished"
	case "TASK_UNREACHABLE", "TASK_LOST":
		return "Unreachable"
	case "TASK_GONE":
		return "Gone"
	case "TASK_DROPPED":
		return "Dropped"
	case "TASK_ERROR":
		return "Error"
	}
	return "Unknown"
}

func (c *Cluster) publishHealth(t *task, alive bool) {
	if c.release.instances() {
		c.publish("health_status_changed_event", "appId", t.app, "instanceId", t.instanceID, "version", t.version, "alive", alive)
		c.publish("instance_health_changed_event",
			"instanceId", t.instanceID, "runSpecId", t.app, "healthy", alive, "runSpecVersion", t.version)
		return
	}
	c.publish("health_status_changed_event", "appId", t.app, "taskId", t.id, "version", t.version, "alive", alive)
}

func (c *Cluster) publishUnhealthyKill(t *task, reason string) {
	kind := "unhealthy_instance_kill_event"
	pairs := []any{"appId", t.app, "taskId", t.id, "instanceId", t.instanceID, "version", t.version,
		"reason", reason, "host", t.agent.Hostname, "slaveId", t.agent.ID}
	if !c.release.instances() {
		kind = "unhealthy_task_kill_event"
		pairs = []any{"appId", t.app, "taskId", t.id, "version", t.version,
			"reason", reason, "host", t.agent.Hostname, "slaveId", t.agent.ID}
	}
	c.publish(kind, pairs...)
}
