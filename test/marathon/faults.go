package marathon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultKind is what goes wrong with a request.
type FaultKind string

// The kinds of faults.
const (
	// FaultStatus answers with Status and Body.
	FaultStatus FaultKind = "status"
	// FaultTruncate cuts the answer's JSON in half, as an answer that is whole to
	// HTTP.
	FaultTruncate FaultKind = "truncate"
	// FaultNulls makes null of everything in the answer's apps and tasks but
	// their ids, and adds a null to every list.
	FaultNulls FaultKind = "nulls"
	// FaultEmpty empties the lists of the answer: no apps, no tasks.
	FaultEmpty FaultKind = "empty"
	// FaultDelay answers rightly, after Delay.
	FaultDelay FaultKind = "delay"
)

// Fault is one thing that goes wrong.
type Fault struct {
	Kind FaultKind
	// Path is the beginning of the paths that are hit. Default "/v2/".
	Path string
	// Method, where set, is the only one that is hit.
	Method string
	// Members are the indices of those that show the fault. Default all.
	Members []int
	// Status is FaultStatus's. Default 500.
	Status int
	// Body is FaultStatus's. Default Jetty's error page.
	Body string
	// Delay is FaultDelay's.
	Delay time.Duration
	// Count is how many requests are hit; 0 for all until it is cleared.
	Count int
}

// faults are those being shown.
type faults struct {
	mu    sync.Mutex
	last  int
	shown map[int]*Fault
}

// Inject shows a fault from now on. The number clears it.
func (c *Cluster) Inject(fault Fault) (int, error) {
	switch fault.Kind {
	case FaultStatus, FaultTruncate, FaultNulls, FaultEmpty, FaultDelay:
	default:
		return 0, fmt.Errorf("unknown kind of fault %q", fault.Kind)
	}
	fallback(&fault.Path, "/v2/")
	fallback(&fault.Status, http.StatusInternalServerError)
	return c.faults.add(fault), nil
}

// ClearFault ends a fault; one that is over already is fine.
func (c *Cluster) ClearFault(number int) { c.faults.remove(number) }

// ClearFaults ends all faults, those of event streams too.
func (c *Cluster) ClearFaults() {
	c.faults.Clear()
	c.hub.silence(false)
	c.hub.dropNothing()
}

// SilenceStreams keeps event streams open without a byte, heartbeats included,
// until it is called with false. Events meanwhile are lost.
func (c *Cluster) SilenceStreams(silent bool) { c.hub.silence(silent) }

// CloseStreams closes all event streams.
func (c *Cluster) CloseStreams() { c.hub.hangUp() }

// Streams is how many event streams are attached.
func (c *Cluster) Streams() int { return c.hub.count() }

// DropEvents loses the next count events of the given types, without a trace; a
// negative count loses them until [Cluster.ClearFaults]. No types are all types.
func (c *Cluster) DropEvents(count int, types ...string) {
	c.hub.drop(dropRule{kinds: types, left: count})
}

// Publish sends an event of any type and payload. Payload keys that events
// always have are added.
func (c *Cluster) Publish(eventType string, payload map[string]any) {
	var pairs []any
	for _, key := range sortedKeys(payload) {
		pairs = append(pairs, key, payload[key])
	}
	c.publish(eventType, pairs...)
}

// PublishOversizedEvent sends a deployment_info event on one line of about as
// many bytes, as large groups make them.
func (c *Cluster) PublishOversizedEvent(size int) {
	c.Publish("deployment_info", map[string]any{
		"plan":        map[string]any{"id": newUUID(), "padding": strings.Repeat("x", max(size, 0))},
		"currentStep": map[string]any{"actions": []any{}},
	})
}

func (f *faults) add(fault Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shown == nil {
		f.shown = map[int]*Fault{}
	}
	f.last++
	f.shown[f.last] = &fault
	return f.last
}

func (f *faults) remove(number int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.shown, number)
}

func (f *faults) Clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.shown)
}

// list gives the faults that are shown, by number.
func (f *faults) list() map[int]Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	shown := map[int]Fault{}
	for number, fault := range f.shown {
		shown[number] = *fault
	}
	return shown
}

// hit gives the oldest fault that the request meets, and counts it.
func (f *faults) hit(member int, r *http.Request) (Fault, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, number := range slices.Sorted(maps.Keys(f.shown)) {
		fault := f.shown[number]
		if !fault.meets(member, r) {
			continue
		}
		found := *fault
		if fault.Count > 0 {
			if fault.Count--; fault.Count == 0 {
				delete(f.shown, number)
			}
		}
		return found, true
	}
	return Fault{}, false
}

func (f *Fault) meets(member int, r *http.Request) bool {
	if !strings.HasPrefix(r.URL.Path, f.Path) || f.Method != "" && f.Method != r.Method {
		return false
	}
	if len(f.Members) > 0 && !slices.Contains(f.Members, member) {
		return false
	}
	// A stream has no document that could be broken.
	return r.URL.Path != "/v2/events" || f.Kind == FaultStatus || f.Kind == FaultDelay
}

// apply answers the request, or gives the writer that it is to be answered
// with; that one may have to be finished.
func (f *Fault) apply(w http.ResponseWriter, r *http.Request) (_ http.ResponseWriter, answered bool) {
	switch f.Kind {
	case FaultStatus:
		if f.Body == "" {
			htmlError(w, f.Status, http.StatusText(f.Status))
			return w, true
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.Status)
		_, _ = w.Write([]byte(f.Body)) // the client's loss
		return w, true
	case FaultDelay:
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
		}
		return w, false
	}
	return &brokenWriter{ResponseWriter: w, kind: f.Kind, status: http.StatusOK}, false
}

// brokenWriter holds an answer back to break it.
type brokenWriter struct {
	http.ResponseWriter
	kind   FaultKind
	status int
	body   bytes.Buffer
}

func (b *brokenWriter) WriteHeader(status int)         { b.status = status }
func (b *brokenWriter) Write(data []byte) (int, error) { return b.body.Write(data) }
func (b *brokenWriter) Unwrap() http.ResponseWriter    { return b.ResponseWriter }
func (b *brokenWriter) FlushError() error              { return nil }
func (b *brokenWriter) Flush()                         {}
func (b *brokenWriter) reply(status int, content []byte) {
	b.Header().Set("Content-Length", strconv.Itoa(len(content)))
	b.ResponseWriter.WriteHeader(status)
	_, _ = b.ResponseWriter.Write(content) // the client's loss
}

func (b *brokenWriter) finish() {
	content := b.body.Bytes()
	var document any
	switch {
	case b.kind == FaultTruncate:
		content = content[:len(content)/2]
	case json.Unmarshal(content, &document) != nil:
	case b.kind == FaultNulls:
		content = mustMarshal(withNulls(document))
	case b.kind == FaultEmpty:
		content = mustMarshal(withoutElements(document))
	}
	b.reply(b.status, content)
}

func withNulls(value any) any {
	switch value := value.(type) {
	case []any:
		list := []any{}
		for _, element := range value {
			list = append(list, withNulls(element))
		}
		return append(list, nil)
	case map[string]any:
		_, identified := value["id"]
		object := map[string]any{}
		for key, field := range value {
			switch {
			case !identified || key == "tasks":
				object[key] = withNulls(field)
			case key == "id":
				object[key] = field
			default:
				object[key] = nil
			}
		}
		return object
	}
	return value
}

func withoutElements(value any) any {
	switch value := value.(type) {
	case []any:
		return []any{}
	case map[string]any:
		object := map[string]any{}
		for key, field := range value {
			if _, isList := field.([]any); isList {
				field = []any{}
			}
			object[key] = field
		}
		return object
	}
	return value
}
