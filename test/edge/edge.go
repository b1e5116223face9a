package edge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	haproxyruntime "github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/test/child"
)

// Options of an edge.
type Options struct {
	// Binary is the mi-lb to run: see [Build].
	Binary string
	// Consul is the address of an agent; empty for no Consul.
	Consul string
	// Marathon are the members' URLs of each cluster.
	Marathon [][]string
	// Config are further keys by their paths ("haproxy.drain": "1s"), which win over
	// those that the rest gives.
	Config map[string]any
}

// Edge is a "mi-lb serve" with its HAProxy. Its methods are for the goroutine of the
// test.
type Edge struct {
	// HTTPAddress is the one for HTTP by name, Admin that of the admin interface.
	HTTPAddress, Admin string
	// Dir holds all of the edge's files: ConfigFile, StateDir, LogFile.
	Dir, ConfigFile, StateDir, LogFile string

	t       testing.TB
	binary  string
	running *child.Process // nil while it does not run
}

// New prepares an edge, which ends with the test. It does not run yet.
func New(t testing.TB, o Options) *Edge {
	t.Helper()
	// Not t.TempDir: the paths of UNIX sockets are at most 107 bytes long.
	dir, err := os.MkdirTemp("", "edge-")
	if err != nil {
		t.Fatal(err)
	}
	guard, err := child.StartGuard()
	if err != nil {
		os.RemoveAll(dir)
		t.Fatal(err)
	}
	e := &Edge{
		HTTPAddress: fmt.Sprintf("127.0.0.1:%d", FreePort(t)), Admin: fmt.Sprintf("127.0.0.1:%d", FreePort(t)),
		Dir: dir, ConfigFile: filepath.Join(dir, "mi-lb.yaml"), StateDir: filepath.Join(dir, "state"), LogFile: filepath.Join(dir, "mi-lb.log"),
		t: t, binary: o.Binary,
	}
	t.Cleanup(func() {
		e.end()
		guard.Stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	e.Configure(o)
	return e
}

// Start runs a new edge and returns when it is ready.
func Start(t testing.TB, o Options) *Edge {
	t.Helper()
	e := New(t, o)
	e.Start()
	e.WaitReady()
	return e
}

// Configure writes the configuration anew; mi-lb reads it at the next start or
// [Edge.Hangup].
func (e *Edge) Configure(o Options) {
	e.t.Helper()
	text, err := e.configuration(o)
	if err != nil {
		e.t.Fatalf("write the edge's configuration: %v", err)
	}
	e.Write(string(text))
}

// Write writes the configuration as it is given.
func (e *Edge) Write(configuration string) {
	e.t.Helper()
	if err := os.WriteFile(e.ConfigFile, []byte(configuration), 0o600); err != nil {
		e.t.Fatalf("write the edge's configuration: %v", err)
	}
}

// Start runs mi-lb; see [Edge.WaitReady] for when it serves.
func (e *Edge) Start() {
	e.t.Helper()
	if e.running != nil {
		e.t.Fatal("start mi-lb: it runs")
	}
	log, err := os.OpenFile(e.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close() // the process has its own copy
	command := exec.Command(e.binary, "serve", "--config", e.ConfigFile)
	command.Stdout, command.Stderr = log, log
	command.Env = child.Environment()
	if e.running, err = child.Start(command, syscall.SIGKILL); err != nil {
		e.t.Fatalf("start mi-lb: %v", err)
	}
}

// PID is mi-lb's, 0 while it does not run.
func (e *Edge) PID() int {
	if e.running == nil {
		return 0
	}
	return e.running.PID()
}

// Stop has mi-lb drain and end with its HAProxy (SIGTERM), and returns when both
// have.
func (e *Edge) Stop() {
	e.t.Helper()
	e.Signal(syscall.SIGTERM)
	if err := e.WaitEnd(); err != nil {
		e.t.Fatalf("mi-lb ended with %v", err)
	}
	if left := e.Left(); len(left) > 0 {
		e.t.Errorf("mi-lb ended and left HAProxy's processes %v", left)
	}
}

// Left are the ids of this edge's HAProxy processes that there are.
func (e *Edge) Left() []int {
	var pids []int
	for _, p := range processesOf(e.Dir) {
		pids = append(pids, p.pid)
		p.close()
	}
	return pids
}

// HandOver has mi-lb end and leave HAProxy serving (SIGUSR2), and returns when it
// has.
func (e *Edge) HandOver() {
	e.t.Helper()
	e.Signal(syscall.SIGUSR2)
	if err := e.WaitEnd(); err != nil {
		e.t.Fatalf("mi-lb ended with %v", err)
	}
}

// Kill ends mi-lb as a crash would (SIGKILL). HAProxy serves on.
func (e *Edge) Kill() {
	e.t.Helper()
	e.Signal(syscall.SIGKILL)
	_ = e.WaitEnd()
}

// Hangup has mi-lb read its configuration and templates again (SIGHUP).
func (e *Edge) Hangup() {
	e.t.Helper()
	e.Signal(syscall.SIGHUP)
}

// Restart stops mi-lb with its HAProxy and starts it again with the same state.
func (e *Edge) Restart() {
	e.t.Helper()
	e.Stop()
	e.Start()
}

// Signal sends mi-lb a signal.
func (e *Edge) Signal(s syscall.Signal) {
	e.t.Helper()
	if e.running == nil {
		e.t.Fatalf("signal mi-lb: it does not run")
	}
	if err := e.running.Signal(s); err != nil {
		e.t.Fatalf("signal mi-lb: %v", err)
	}
}

// WaitEnd returns when mi-lb has ended, with the error of how; nil for exit code 0.
func (e *Edge) WaitEnd() error {
	e.t.Helper()
	r := e.running
	if r == nil {
		e.t.Fatal("wait for mi-lb to end: it does not run")
	}
	select {
	case <-r.Ended():
		e.running = nil
		return r.Err()
	case <-time.After(Patience):
		e.t.Fatalf("mi-lb does not end")
		return nil
	}
}

// WaitReady returns when the first table of all reachable sources runs in HAProxy.
func (e *Edge) WaitReady() {
	e.t.Helper()
	Wait(e.t, "mi-lb ready", func() error {
		select {
		case <-e.running.Ended():
			e.t.Fatalf("mi-lb ended: %v", e.running.Err())
		default:
		}
		code, body, err := e.get("/readyz")
		if err == nil && code != 200 {
			err = errors.New(strings.TrimSpace(string(body)))
		}
		return err
	})
}

// Log is what mi-lb has logged so far.
func (e *Edge) Log() string {
	e.t.Helper()
	text, err := os.ReadFile(e.LogFile)
	if err != nil {
		e.t.Fatal(err)
	}
	return string(text)
}

// Runtime is HAProxy's runtime API, as somebody else would use it.
func (e *Edge) Runtime() *haproxyruntime.Client {
	return haproxyruntime.NewClient(filepath.Join(e.StateDir, "haproxy.sock"))
}

// Master is HAProxy's master socket.
func (e *Edge) Master() *haproxyruntime.Master {
	return haproxyruntime.NewMaster(filepath.Join(e.StateDir, "haproxy-master.sock"))
}

// Processes are HAProxy's, as its master says, asked without mi-lb. A master that is being
// reloaded or started refuses for a moment.
func (e *Edge) Processes() haproxyruntime.Processes {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	var processes haproxyruntime.Processes
	Wait(e.t, "an answer of HAProxy's master", func() (err error) {
		processes, err = e.Master().Processes(ctx)
		return err
	})
	return processes
}

// KillHAProxy ends one of HAProxy's processes as a crash would: see [Edge.Processes].
func (e *Edge) KillHAProxy(pid int) {
	e.t.Helper()
	for _, p := range processesOf(e.Dir) {
		defer p.close()
		if p.pid == pid {
			if err := p.kill(); err != nil {
				e.t.Fatal(err)
			}
			return
		}
	}
	e.t.Fatalf("process %d is not one of this edge's HAProxy", pid)
}

// end ends everything at once and says what a test did not look at.
func (e *Edge) end() {
	if e.running != nil {
		e.running.End(syscall.SIGKILL, Patience)
		e.running = nil
	}
	for _, p := range processesOf(e.Dir) {
		if err := p.kill(); err != nil {
			e.t.Error(err)
		}
		p.close()
	}
	log, err := os.ReadFile(e.LogFile)
	if err != nil {
		return // it never ran
	}
	for _, trouble := range []string{"WARNING: DATA RACE", "panic: ", "fatal error: "} {
		if bytes.Contains(log, []byte(trouble)) {
			e.t.Errorf("mi-lb's log has %q", trouble)
		}
	}
	if e.t.Failed() {
		const last = 48 << 10
		e.t.Logf("mi-lb logged:\n%s", log[max(0, len(log)-last):])
		if configuration, err := os.ReadFile(filepath.Join(e.StateDir, "haproxy", "current", "haproxy.cfg")); err == nil {
			e.t.Logf("HAProxy's configuration:\n%s", configuration[:min(len(configuration), last)])
		}
	}
}
