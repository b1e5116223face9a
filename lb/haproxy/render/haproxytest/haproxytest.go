// Package haproxytest runs a real HAProxy for tests: it checks configurations,
// starts one, and talks to its socket. It fails the test on anything unexpected
// and ends what it started.
package haproxytest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const patience = 20 * time.Second

// Path is the haproxy that tests use: $HAPROXY, or the one on the PATH.
func Path(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("HAPROXY"); path != "" {
		return path
	}
	for _, name := range []string{"haproxy", "/usr/sbin/haproxy"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("haproxy is not installed: apt-get install haproxy")
	return ""
}

// Validate is what `haproxy -c` says of the file; nil if it accepts it without
// a warning.
func Validate(t testing.TB, path string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, Path(t), "-c", "-f", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("haproxy -c: %w\n%s", err, out)
	}
	if bytes.Contains(out, []byte("[WARNING]")) {
		return fmt.Errorf("haproxy -c warns:\n%s", out)
	}
	return nil
}

// Process is a running HAProxy.
type Process struct {
	t      testing.TB
	socket string
	cmd    *exec.Cmd
	done   chan struct{}
	log    *output
}

type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Start runs HAProxy in master-worker mode with the file, whose runtime socket is
// the one given, and returns when the worker answers there. It ends with the test.
func Start(t testing.TB, path, socket string) *Process {
	t.Helper()
	p := &Process{t: t, socket: socket, done: make(chan struct{}), log: &output{}}
	p.cmd = exec.Command(Path(t), "-W", "-f", path)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.WaitDelay = time.Second
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = p.cmd.Wait(); close(p.done) }()
	t.Cleanup(p.Stop)
	Until(t, "HAProxy answers", func() error {
		select {
		case <-p.done:
			t.Fatalf("HAProxy ended:\n%s", p.log)
		default:
		}
		_, err := p.try("show info")
		return err
	})
	return p
}

// Stop ends the master and its workers.
func (p *Process) Stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(5 * time.Second):
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}

// Pid is the worker's.
func (p *Process) Pid() string {
	for line := range strings.Lines(p.Command("show info")) {
		if pid, ok := strings.CutPrefix(line, "Pid: "); ok {
			return strings.TrimSpace(pid)
		}
	}
	p.t.Fatal("show info has no Pid")
	return ""
}

// Reload makes the master start a new worker and returns when it answers.
func (p *Process) Reload() {
	p.t.Helper()
	old := p.Pid()
	var asked time.Time
	Until(p.t, "the new worker answers", func() error {
		// A master that is still busy with the reload before loses the signal.
		if time.Since(asked) > 2*time.Second {
			if err := p.cmd.Process.Signal(syscall.SIGUSR2); err != nil {
				return err
			}
			asked = time.Now()
		}
		out, err := p.try("show info")
		if err != nil {
			return err
		}
		if strings.Contains(out, "\nPid: "+old+"\n") {
			return fmt.Errorf("worker %s still answers:\n%s", old, p.log)
		}
		return nil
	})
}

// Log is what HAProxy has printed.
func (p *Process) Log() string { return p.log.String() }

// Command is the answer of the runtime socket to the line.
func (p *Process) Command(line string) string {
	p.t.Helper()
	out, err := p.try(line)
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", line, err, p.log)
	}
	return out
}

func (p *Process) try(line string) (string, error) {
	conn, err := net.DialTimeout("unix", p.socket, time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(conn)
	return string(out), err
}

// Until waits for the condition, and fails the test if it does not come true.
func Until(t testing.TB, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// FreePort is a TCP port of the loopback address that nobody listened on just now.
func FreePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// Dir is a directory with a path short enough for a unix socket.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "haproxy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// WriteFile writes the file into the directory and returns its path.
func WriteFile(t testing.TB, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
