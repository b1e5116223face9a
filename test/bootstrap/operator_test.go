package bootstrap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/hosts"
)

// operator is somebody with an inventory, a key and mi-lb: a directory on this
// machine.
type operator struct {
	t         testing.TB
	dir       string
	inventory string
	hosts     *hosts.Hosts
	extra     []string // arguments of all commands
}

// newOperator is one who trusts the host keys of the machines and has written the
// inventory.
func newOperator(t testing.TB, h *hosts.Hosts, inventory string) *operator {
	t.Helper()
	o := &operator{t: t, dir: t.TempDir(), hosts: h}
	o.inventory = filepath.Join(o.dir, "inventory")
	o.write("inventory", inventory)
	o.trust()
	return o
}

// write writes a file into the operator's directory.
func (o *operator) write(name, content string) string {
	o.t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		o.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		o.t.Fatal(err)
	}
	return path
}

func (o *operator) state(name string) string {
	return filepath.Join(o.dir, ".mi-lb", filepath.Base(o.inventory), name)
}

// trust has the operator trust the keys that the machines had when they were
// installed, as bootstrap keyscan would.
func (o *operator) trust() {
	o.t.Helper()
	if o.hosts == nil {
		return
	}
	known, err := os.ReadFile(o.hosts.KnownHosts)
	if err != nil {
		o.t.Fatal(err)
	}
	o.write(filepath.Join(".mi-lb", filepath.Base(o.inventory), "known_hosts"), string(known))
}

// result is what a command left.
type result struct {
	stdout, stderr string
	code           int
	took           time.Duration
	used           time.Duration // of the processor
}

// shownLines is how much of an output is shown: a plan is long, and what a CI keeps of
// a test's words is not.
const shownLines = 60

// String begins with the errors, and ends with the end of what was printed.
func (r result) String() string {
	lines, above := strings.SplitAfter(r.stdout, "\n"), ""
	if more := len(lines) - shownLines; more > 0 {
		lines, above = lines[more:], fmt.Sprintf("… (%d lines)\n", more)
	}
	return fmt.Sprintf("exit code %d after %s\n--- stderr\n%s\n--- stdout\n%s%s",
		r.code, r.took.Round(time.Millisecond), r.stderr, above, strings.Join(lines, ""))
}

// says is all that was printed.
func (r result) says() string { return r.stdout + r.stderr }

// command is "mi-lb bootstrap …" that has not been started.
func (o *operator) command(arguments ...string) *exec.Cmd {
	arguments = append([]string{"bootstrap"}, arguments...)
	arguments = append(append(arguments, "-i", o.inventory, "--ssh-config", "none"), o.extra...)
	command := exec.Command(programs.miLB, arguments...)
	command.Dir = o.dir
	// No agent, no home: nothing that whoever runs the test has set up.
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + o.dir, "TMPDIR=" + os.TempDir(), "NO_COLOR=1"}
	return command
}

// limit is how long a command may take, however busy the machine.
const limit = 25 * time.Minute

// try runs "mi-lb bootstrap …".
func (o *operator) try(arguments ...string) result {
	o.t.Helper()
	running := o.start(arguments...)
	return running.wait()
}

// must runs a command that must succeed.
func (o *operator) must(arguments ...string) result {
	o.t.Helper()
	r := o.try(arguments...)
	if r.code != 0 {
		o.t.Fatalf("mi-lb bootstrap %s: %s\n%s", strings.Join(arguments, " "), r, o.lastLog())
	}
	return r
}

// refused runs a command that must fail and say all of that.
func (o *operator) refused(arguments []string, words ...string) result {
	o.t.Helper()
	r := o.try(arguments...)
	if r.code != 1 && r.code != 2 {
		o.t.Fatalf("mi-lb bootstrap %s did not fail: %s", strings.Join(arguments, " "), r)
	}
	for _, word := range words {
		if !strings.Contains(r.says(), word) {
			o.t.Errorf("mi-lb bootstrap %s does not say %q: %s", strings.Join(arguments, " "), word, r)
		}
	}
	return r
}

// lastLog is the end of the log of the last run.
func (o *operator) lastLog() string {
	files, _ := filepath.Glob(o.state("logs/*.log"))
	if len(files) == 0 {
		return "there is no log"
	}
	newest := files[0]
	for _, file := range files {
		a, err1 := os.Stat(file)
		b, err2 := os.Stat(newest)
		if err1 == nil && err2 == nil && a.ModTime().After(b.ModTime()) {
			newest = file
		}
	}
	log, err := os.ReadFile(newest)
	if err != nil {
		return err.Error()
	}
	const last = 12 << 10
	return "log " + newest + ":\n" + string(log[max(0, len(log)-last):])
}

// running is a command that was started.
type running struct {
	*child.Process
	t              testing.TB
	stdout, stderr output
	begun          time.Time
}

func (o *operator) start(arguments ...string) *running {
	o.t.Helper()
	r := &running{t: o.t, begun: time.Now()}
	command := o.command(arguments...)
	command.Stdout, command.Stderr = &r.stdout, &r.stderr
	var err error
	if r.Process, err = child.Start(command, syscall.SIGKILL); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { r.End(syscall.SIGKILL, limit) })
	return r
}

// wait returns when it has ended.
func (r *running) wait() result {
	r.t.Helper()
	select {
	case <-r.Ended():
	case <-time.After(limit):
		r.t.Fatalf("it does not end: %s%s", r.stdout.String(), r.stderr.String())
	}
	code := 0
	if err := r.Err(); err != nil {
		code = -1
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
	}
	return result{r.stdout.String(), r.stderr.String(), code, time.Since(r.begun), r.Used()}
}

// killAt kills it as soon as it has printed something that the pattern fits.
func (r *running) killAt(pattern string) {
	r.t.Helper()
	r.until(pattern)
	r.End(syscall.SIGKILL, limit)
}

// until returns when it has printed something that the pattern fits.
func (r *running) until(pattern string) {
	r.t.Helper()
	fits := regexp.MustCompile(pattern)
	begun := time.Now()
	for !fits.MatchString(r.stdout.String() + r.stderr.String()) {
		select {
		case <-r.Ended():
			r.t.Fatalf("it ended before it said %q: %v\n%s%s", pattern, r.Err(), r.stdout.String(), r.stderr.String())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begun) > limit {
			r.t.Fatalf("it does not say %q: %s%s", pattern, r.stdout.String(), r.stderr.String())
		}
	}
}

// output collects what is written.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// eventually returns when the condition holds, and fails with its last error if it
// does not in the time that a busy machine may need.
func eventually(t testing.TB, what string, holds func(ctx context.Context) error) time.Duration {
	t.Helper()
	const patience = 4 * time.Minute
	begun := time.Now()
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
		err := holds(ctx)
		cancel()
		if err == nil {
			return time.Since(begun)
		}
		if time.Since(begun) > patience {
			t.Fatalf("not seen in %s: %s: %v", patience, what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
