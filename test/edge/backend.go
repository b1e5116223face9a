package edge

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Backend is an HTTP server on loopback that answers every request with its name.
type Backend struct {
	Name string
	// Port it listens on, as long as it lives.
	Port int

	t        testing.TB
	delay    atomic.Int64
	requests atomic.Int64
	holding  atomic.Int64

	mu     sync.Mutex
	held   chan struct{} // nil while answers are not held
	server *http.Server  // nil while it is down
}

// StartBackend runs one until the test ends.
func StartBackend(t testing.TB, name string) *Backend {
	t.Helper()
	listener := listenFree(t)
	b := &Backend{Name: name, Port: listener.Addr().(*net.TCPAddr).Port, t: t}
	b.serve(listener)
	t.Cleanup(b.Abort)
	return b
}

func (b *Backend) serve(listener net.Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.server = &http.Server{
		Handler: http.HandlerFunc(b.answer), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: time.Minute,
	}
	server := b.server
	go func() { _ = server.Serve(listener) }()
}

func (b *Backend) answer(w http.ResponseWriter, r *http.Request) {
	b.requests.Add(1)
	b.mu.Lock()
	held := b.held
	b.mu.Unlock()
	if held != nil {
		b.holding.Add(1)
		defer b.holding.Add(-1)
		select {
		case <-held:
		case <-r.Context().Done():
			return
		}
	}
	if delay := time.Duration(b.delay.Load()); delay > 0 {
		select {
		case <-time.After(delay):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, b.Name) // the client's loss
}

// Address is host:port.
func (b *Backend) Address() string { return fmt.Sprintf("127.0.0.1:%d", b.Port) }

// Requests is how many it has received.
func (b *Backend) Requests() int64 { return b.requests.Load() }

// Slow lets every answer from now on take so long.
func (b *Backend) Slow(by time.Duration) { b.delay.Store(int64(by)) }

// Hold keeps every answer from now on back until release is called.
func (b *Backend) Hold() (release func()) {
	held := make(chan struct{})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = held
	return sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.held == held {
			b.held = nil
		}
		close(held)
	})
}

// Holding is how many requests wait for their answers.
func (b *Backend) Holding() int { return int(b.holding.Load()) }

// Abort ends the backend as SIGKILL ends a process: nobody listens any more, requests
// without an answer get none, and the kernel still sends what was written. (Resetting
// the connections would take back answers that were on their way, which no proxy can
// mend: their beginning may have reached the client.)
func (b *Backend) Abort() {
	b.mu.Lock()
	server := b.server
	b.server = nil
	b.mu.Unlock()
	if server != nil {
		_ = server.Close()
	}
}

// Shutdown ends the backend as a well-behaved process does: it finishes what it has.
func (b *Backend) Shutdown() {
	b.t.Helper()
	b.mu.Lock()
	server := b.server
	b.server = nil
	b.mu.Unlock()
	if server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		b.t.Errorf("backend %s: %v", b.Name, err)
	}
}

// Restart brings a backend that is down back on its port.
func (b *Backend) Restart() {
	b.t.Helper()
	listener, err := net.Listen("tcp", b.Address())
	if err != nil {
		b.t.Fatalf("backend %s: %v", b.Name, err)
	}
	b.serve(listener)
}
