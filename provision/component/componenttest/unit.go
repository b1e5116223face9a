package componenttest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/desired"
)

// Process is what runs of a unit.
type Process struct {
	unit    desired.Unit
	command *exec.Cmd
	output  *tail
	ended   chan struct{}
}

// Start runs the ExecStart of a unit as systemd would, as whoever runs the test, and
// not restarted when it ends. It ends with the test.
func Start(t testing.TB, unit desired.Unit) *Process {
	t.Helper()
	u, err := parseUnit(unit.Content)
	if err != nil {
		t.Fatalf("%s: %v", unit.Name, err)
	}
	for _, pre := range u.before {
		c := exec.Command(pre[0], pre[1:]...)
		c.Env = u.environment
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %v: %s", unit.Name, pre, err, out)
		}
	}
	p := &Process{unit: unit, output: &tail{}, ended: make(chan struct{})}
	p.command = exec.Command(u.start[0], u.start[1:]...)
	p.command.Env = u.environment
	p.command.Dir = u.folder
	p.command.Stdout, p.command.Stderr = p.output, p.output
	// A group of its own, ended as a whole; and never outliving a killed test.
	p.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// Pdeathsig is about the thread that starts it, so the thread stays.
		lockThread()
		started <- p.command.Start()
		if p.command.Process != nil {
			_ = p.command.Wait()
		}
		close(p.ended)
	}()
	if err := <-started; err != nil {
		t.Fatalf("%s: %v", unit.Name, err)
	}
	t.Cleanup(func() {
		p.Kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", unit.Name, p.Output())
		}
	})
	return p
}

// Running says whether it has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Output is the end of what it printed.
func (p *Process) Output() string { return p.output.String() }

// PID is its process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Stop ends it as systemctl stop does, and returns when it has ended.
func (p *Process) Stop() {
	p.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.Kill()
	}
}

// Kill ends it and its children as a crash would.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
	<-p.ended
}

// Reload tells it to read its files again, by SIGHUP.
func (p *Process) Reload() { p.Signal(syscall.SIGHUP) }

// Signal sends a signal to it, if it runs.
func (p *Process) Signal(s syscall.Signal) {
	if p.Running() {
		_ = syscall.Kill(p.PID(), s)
	}
}

type parsedUnit struct {
	start       []string
	before      [][]string
	environment []string
	folder      string
}

// parseUnit understands what components' units use: ExecStart and ExecStartPre
// without quotes or specifiers, Environment, EnvironmentFile, WorkingDirectory.
func parseUnit(content string) (parsedUnit, error) {
	u := parsedUnit{environment: []string{"PATH=" + os.Getenv("PATH"), "HOME=/"}}
	values := map[string]string{}
	set := func(entry string) {
		name, value, _ := strings.Cut(entry, "=")
		values[name] = value
		u.environment = append(u.environment, entry)
	}
	content = strings.ReplaceAll(content, "\\\n", " ")
	for line := range strings.SplitSeq(content, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		switch key {
		case "Environment":
			set(strings.Trim(value, `"`))
		case "EnvironmentFile":
			file, optional := strings.CutPrefix(value, "-")
			data, err := os.ReadFile(file)
			if err != nil && !optional {
				return u, err
			}
			for entry := range strings.SplitSeq(string(data), "\n") {
				if entry = strings.TrimSpace(entry); entry != "" && entry[0] != '#' {
					name, value, _ := strings.Cut(entry, "=")
					set(name + "=" + strings.Trim(value, `"'`))
				}
			}
		case "WorkingDirectory":
			u.folder = value
		case "ExecStartPre":
			u.before = append(u.before, words(strings.TrimLeft(value, "-+!@"), values))
		case "ExecStart":
			u.start = words(strings.TrimLeft(value, "-+!@"), values)
		}
	}
	if len(u.start) == 0 {
		return u, errors.New("it has no ExecStart")
	}
	return u, nil
}

var bracedVariable = regexp.MustCompile(`\$\{[A-Za-z_][A-Za-z0-9_]*\}`)

// words splits a command line: $X is any number of words, ${X} is part of one.
func words(line string, values map[string]string) []string {
	var all []string
	for _, word := range strings.Fields(line) {
		if name, ok := strings.CutPrefix(word, "$"); ok && !strings.HasPrefix(name, "{") {
			all = append(all, strings.Fields(values[name])...)
			continue
		}
		all = append(all, bracedVariable.ReplaceAllStringFunc(word, func(v string) string { return values[v[2:len(v)-1]] }))
	}
	return all
}

// tail keeps the end of what is written.
type tail struct {
	mu   sync.Mutex
	data []byte
}

const tailLength = 16 << 10

// Write implements io.Writer.
func (b *tail) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if len(b.data) > 2*tailLength {
		b.data = append([]byte(nil), b.data[len(b.data)-tailLength:]...)
	}
	return len(p), nil
}

// String is the end.
func (b *tail) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := b.data[max(0, len(b.data)-tailLength):]
	return string(bytes.ToValidUTF8(data, []byte("?")))
}
