package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
)

// site is the directory of one HAProxy and an origin behind it.
type site struct {
	t      *testing.T
	cfg    process.Config
	port   int
	origin string
	log    *logBuffer
}

type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := haproxytest.Dir(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	s := &site{t: t, port: haproxytest.FreePort(t), origin: listener.Addr().String(), log: &logBuffer{}}
	s.cfg = process.Config{
		Path: haproxytest.Path(t), Files: []string{filepath.Join(dir, "haproxy.cfg")},
		MasterSocket: filepath.Join(dir, "m.sock"), RuntimeSocket: filepath.Join(dir, "s.sock"), Output: filepath.Join(dir, "out"),
		Managed: true, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	}
	s.write("1", "")
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.log.String())
		}
	})
	return s
}

// write makes the configuration one of the generation, with something more in it.
func (s *site) write(generation, more string) {
	s.t.Helper()
	haproxytest.WriteFile(s.t, filepath.Dir(s.cfg.Files[0]), "haproxy.cfg", fmt.Sprintf(`global
	stats socket %s mode 600 level admin expose-fd listeners
	description %s
	maxconn 500
	hard-stop-after 20s
defaults
	mode http
	timeout connect 2s
	timeout client 10s
	timeout server 10s
	timeout http-keep-alive 5s
	retries 3
	option redispatch
frontend f
	bind 127.0.0.1:%d
	default_backend web
backend web
	server a %s
%s`, s.cfg.RuntimeSocket, generation, s.port, s.origin, more))
}

// open makes the handle of the site's HAProxy; it dies with the test, HAProxy too.
func (s *site) open() *process.Process {
	s.t.Helper()
	p, err := process.New(s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if s.cfg.Managed {
			if err := p.Stop(context.Background(), 0); err != nil {
				s.t.Error(err)
			}
		}
		_ = p.Close()
	})
	return p
}

func (s *site) start() (*process.Process, process.State) {
	s.t.Helper()
	p := s.open()
	state, err := p.Start(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return p, state
}

func (s *site) get() error {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", s.port))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// load asks without pause until the function it returns is called, which tells how
// many requests there were and the failed ones.
func (s *site) load(clients int, keepAlive bool) (asked *atomic.Int64, stop func() []error) {
	ctx, cancel := context.WithCancel(context.Background())
	asked = &atomic.Int64{}
	var mu sync.Mutex
	var failed []error
	var wg sync.WaitGroup
	url := fmt.Sprintf("http://127.0.0.1:%d/", s.port)
	for range clients {
		wg.Go(func() {
			client := &http.Client{Transport: &http.Transport{DisableKeepAlives: !keepAlive}, Timeout: 10 * time.Second}
			for ctx.Err() == nil {
				resp, err := client.Get(url)
				if err == nil {
					if resp.StatusCode != http.StatusOK {
						err = errors.New(resp.Status)
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if asked.Add(1); err != nil {
					mu.Lock()
					failed = append(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	var once sync.Once
	stop = func() []error { once.Do(func() { cancel(); wg.Wait() }); return failed }
	s.t.Cleanup(func() { stop() })
	return asked, stop
}

func supervise(t *testing.T, p *process.Process) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Supervise(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// event waits for one with the cause.
func event(t *testing.T, p *process.Process, cause process.Cause) process.Event {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		select {
		case e := <-p.Events():
			if e.Cause == cause {
				return e
			}
		case <-timeout:
			t.Fatalf("no event %q", cause)
		}
	}
}
