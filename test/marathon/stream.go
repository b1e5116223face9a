package marathon

import (
	"net"
	"net/http"
	"strings"
	"time"
)

// serveEvents is the event stream, as Jetty's EventSourceServlet writes it.
func (c *Cluster) serveEvents(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		htmlError(w, http.StatusMethodNotAllowed, "HTTP method GET is not supported by this URL")
		return
	}
	query := r.URL.Query()
	full := !c.release.lightPlans()
	if format := query.Get("plan-format"); format != "" {
		full = format != "light"
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	// Attached before the client sees an answer: what it does next, it hears of.
	s := c.hub.attach(query["event_type"], full, newEvent("event_stream_attached", "remoteAddress", remote))
	defer func() {
		c.hub.detach(s)
		c.publish("event_stream_detached", "remoteAddress", remote)
	}()
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream;charset=utf-8")
	w.Header().Set("Connection", "close")
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return
	}
	heartbeat := time.NewTicker(c.options.HeartbeatInterval)
	defer heartbeat.Stop()
	send := func(parts ...string) bool {
		for _, part := range parts {
			if _, err := w.Write([]byte(part)); err != nil || control.Flush() != nil {
				return false
			}
		}
		return true
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case <-s.closed:
			return
		case frame := <-s.events:
			if !send(string(frame)) {
				return
			}
		case <-heartbeat.C:
			// Jetty flushes the two bytes one by one.
			if !c.hub.isSilent() && !send("\r", "\n") {
				return
			}
		}
	}
}
