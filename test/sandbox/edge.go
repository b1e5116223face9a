package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/test/child"
)

// Edge is one datacenter's edge: a "mi-lb serve" with the HAProxy that it drives.
type Edge struct {
	// HTTP is the address for HTTP by name, Admin that of the admin interface.
	HTTP, Admin string
	// ServicePortAddress is where service ports open.
	ServicePortAddress string
	// Config is the path of the edge's configuration, StateDir that of its state,
	// Log that of what it logs.
	Config, StateDir, Log string

	name   string
	binary string

	mu      sync.Mutex
	process *child.Process // nil while it does not run
}

func newEdge(dir, binary string, dc Datacenter, configuration map[string]any) (*Edge, error) {
	e := &Edge{
		HTTP: addressOf(dc, dc.HTTP), Admin: addressOf(dc, dc.Admin), ServicePortAddress: dc.Address.String(),
		Config: filepath.Join(dir, "mi-lb.yaml"), StateDir: filepath.Join(dir, "state"), Log: filepath.Join(dir, "mi-lb.log"),
		name: dc.Name, binary: binary,
	}
	configuration["state_dir"] = e.StateDir
	text, err := yaml.Marshal(configuration)
	if err != nil {
		return nil, fmt.Errorf("write the configuration of the edge in %s: %w", e.name, err)
	}
	if err := os.WriteFile(e.Config, text, 0o600); err != nil {
		return nil, fmt.Errorf("write the configuration of the edge in %s: %w", e.name, err)
	}
	return e, nil
}

// Start runs mi-lb; see [Edge.WaitReady] for when it serves. It may be called again
// after [Edge.Kill] or [Edge.Stop].
func (e *Edge) Start() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.process != nil {
		return fmt.Errorf("start the edge in %s: it runs", e.name)
	}
	log, err := os.OpenFile(e.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start the edge in %s: %w", e.name, err)
	}
	defer log.Close() // the process has its own copy
	command := exec.Command(e.binary, "serve", "--config", e.Config)
	command.Stdout, command.Stderr = log, log
	command.Env = child.Environment()
	// SIGTERM, so that it ends its HAProxy too.
	p, err := child.Start(command, syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("start the edge in %s: %w", e.name, err)
	}
	e.process = p
	return nil
}

// PID is mi-lb's, 0 while it does not run.
func (e *Edge) PID() int {
	if p := e.running(); p != nil {
		return p.PID()
	}
	return 0
}

func (e *Edge) running() *child.Process {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.process
}

// Ended is closed when mi-lb ends, by itself too; nil while it does not run.
func (e *Edge) Ended() <-chan struct{} {
	if p := e.running(); p != nil {
		return p.Ended()
	}
	return nil
}

// WaitReady returns when the edge's first table runs in HAProxy. The error says what
// the edge waits for, or how it ended, and the last that it logged.
func (e *Edge) WaitReady(ctx context.Context) error {
	p := e.running()
	if p == nil {
		return fmt.Errorf("wait for the edge in %s: it does not run", e.name)
	}
	last := "it has not answered"
	for {
		code, body, err := get(ctx, "http://"+e.Admin+"/readyz")
		switch {
		case err == nil && code == http.StatusOK:
			return nil
		case err == nil:
			last = strings.TrimSpace(body)
		}
		select {
		case <-p.Ended():
			return fmt.Errorf("start the edge in %s: mi-lb ended: %w\n%s", e.name, errors.Join(p.Err()), e.lastLog())
		case <-ctx.Done():
			return fmt.Errorf("wait for the edge in %s: %w; /readyz: %s\n%s", e.name, ctx.Err(), last, e.lastLog())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func get(ctx context.Context, url string) (code int, body string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 64<<10))
	return response.StatusCode, string(text), err
}

// lastLog is the end of what mi-lb logged.
func (e *Edge) lastLog() string {
	text, err := os.ReadFile(e.Log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-4<<10):])
}

// Kill ends mi-lb as a crash would, and leaves HAProxy serving.
func (e *Edge) Kill() {
	if p := e.take(); p != nil {
		p.End(syscall.SIGKILL, time.Minute)
	}
}

func (e *Edge) take() *child.Process {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.process
	e.process = nil
	return p
}

// How long each step of Stop may take before the next is taken. A mi-lb that is told
// to end at once gives HAProxy ten seconds.
const (
	drainAtMost = 3 * time.Second
	endAtMost   = 15 * time.Second
)

// Stop ends mi-lb and its HAProxy, also one that a killed mi-lb has left. mi-lb is
// asked to drain, then to end at once, then killed; a HAProxy that is still there
// then is killed too, which is an error: mi-lb should have ended it.
func (e *Edge) Stop() error {
	owned := e.ownHAProxy()
	defer owned.close()
	p := e.take()
	if p == nil {
		owned.kill()
		return nil
	}
	for _, step := range []struct {
		signal  syscall.Signal
		atMost  time.Duration
		because string
	}{
		{syscall.SIGTERM, drainAtMost, ""},
		{syscall.SIGTERM, endAtMost, ""},
		{syscall.SIGKILL, time.Minute, "it did not end after two SIGTERM"},
	} {
		_ = p.Signal(step.signal)
		timer := time.NewTimer(step.atMost)
		select {
		case <-p.Ended():
			timer.Stop()
			left := owned.alive()
			// HAProxy may have been started again since.
			again := e.ownHAProxy()
			defer again.close()
			left = append(left, again.alive()...)
			owned.kill()
			again.kill()
			switch {
			case step.because != "":
				return fmt.Errorf("stop the edge in %s: %s\n%s", e.name, step.because, e.lastLog())
			case len(left) > 0:
				return fmt.Errorf("stop the edge in %s: mi-lb ended (%v) and left HAProxy running (%v)\n%s", e.name, p.Err(), left, e.lastLog())
			case p.Err() != nil:
				return fmt.Errorf("stop the edge in %s: mi-lb ended with %w\n%s", e.name, p.Err(), e.lastLog())
			}
			return nil
		case <-timer.C:
		}
	}
	return fmt.Errorf("stop the edge in %s: process %d cannot be killed", e.name, p.PID())
}

// haproxyProcesses are the processes of one HAProxy, held by descriptors: what ends
// meanwhile is never mistaken for another process with its number.
type haproxyProcesses struct {
	pids []int
	fds  []int
}

// ownHAProxy finds the master of the edge's socket and its workers by their command
// lines: a master in the middle of a reload answers nobody.
func (e *Edge) ownHAProxy() *haproxyProcesses {
	socket := filepath.Join(e.StateDir, "haproxy-master.sock")
	found := &haproxyProcesses{}
	var pids []int
	entries, _ := os.ReadDir("/proc")
	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		// Only now is the number certain to stay this process's.
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.Contains(string(line), "\x00-S\x00"+socket+",") {
			unix.Close(fd)
			continue
		}
		found.pids, found.fds = append(found.pids, pid), append(found.fds, fd)
	}
	return found
}

func (h *haproxyProcesses) alive() []int {
	var alive []int
	for i, fd := range h.fds {
		if !ended(fd, 0) {
			alive = append(alive, h.pids[i])
		}
	}
	return alive
}

// kill ends them and returns when they are gone.
func (h *haproxyProcesses) kill() {
	for _, fd := range h.fds {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
	}
	for _, fd := range h.fds {
		ended(fd, endAtMost)
	}
}

func (h *haproxyProcesses) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	h.fds = nil
}

// ended waits for a process's end, which makes its descriptor readable.
func ended(fd int, atMost time.Duration) bool {
	for deadline := time.Now().Add(atMost); ; {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(max(0, time.Until(deadline)).Milliseconds()))
		if n > 0 {
			return true
		}
		if err == nil || !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}
