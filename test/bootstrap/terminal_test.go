package bootstrap

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"

	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/hosts"
)

// interrupt is what Ctrl-C types.
const interrupt = "\x03"

var colors = regexp.MustCompile(`\x1b\[[0-9;]*m`)

// TestOperatorAtATerminal has somebody sit at a terminal: who answers, sees the table,
// makes the window narrower, and interrupts; once, then twice, and lets it go on then.
func TestOperatorAtATerminal(t *testing.T) {
	h := hosts.Start(t, hosts.Spec{Names: []string{"one", "two"}, Packages: packages})
	o := newOperator(t, h, small(h))
	ctx := context.Background()

	t.Run("interrupted once", func(t *testing.T) {
		s := o.sit(t, 160, 40, "TERM=xterm-256color")
		s.until("it asks", "Only \"yes\" is a yes")
		s.types("yes\n")
		s.until("there is a table", "machine base docker zookeeper", "\none ", "\ntwo ")
		s.resize(60, 20)
		s.until("the table fits a narrow window", "machine components", "two")
		s.until("Docker is being set up", "docker: ")
		s.types(interrupt)
		s.until("it says that it stops", "Stopping after the steps", "to stop at once.")
		code := s.wait()
		if !strings.Contains(s.raw(), "\x1b[36m»") {
			t.Error("nothing is coloured")
		}
		if shown := s.shown(); code != 1 || !strings.Contains(shown, "Left to do:") || !strings.Contains(shown, "run it again to go on") {
			t.Errorf("exit code %d:\n%s", code, shown)
		}
		if n := strings.Count("\n"+s.shown(), "\nmachine "); n > 1 {
			t.Errorf("the table is there %d times:\n%s", n, s.shown())
		}
		// What it was at is done, and what comes after is not begun.
		if state, err := h.Machine("two").Run(ctx, "systemctl is-active docker"); err != nil {
			t.Errorf("docker is %s: %v", state, err)
		}
		if state, err := h.Machine("one").Run(ctx, "systemctl is-active zookeeper"); err == nil {
			t.Errorf("zookeeper is %s", state)
		}
	})
	t.Run("interrupted twice", func(t *testing.T) {
		s := o.sit(t, 100, 30, "TERM=xterm-256color", "NO_COLOR=1")
		s.until("it asks", "Only \"yes\" is a yes")
		s.types("yes\n")
		s.until("ZooKeeper is being set up", "zookeeper: ")
		s.types(interrupt)
		s.until("it says that it stops", "Interrupt again to stop at once.")
		s.types(interrupt)
		if code := s.wait(); code != -int(syscall.SIGINT) {
			t.Errorf("it ended with %d:\n%s", code, s.shown())
		}
		if colors.MatchString(s.raw()) {
			t.Error("it has colours, in spite of NO_COLOR")
		}
	})
	t.Run("a terminal that can do nothing", func(t *testing.T) {
		s := o.sit(t, 80, 24, "TERM=dumb", "NO_COLOR=1")
		s.until("it asks", "Only \"yes\" is a yes")
		s.types("yes\n")
		code := s.wait()
		said := s.raw()
		for _, want := range []string{"was cut off", " zookeeper ", "The platform works."} {
			if code != 0 || !strings.Contains(said, want) {
				t.Fatalf("exit code %d, and it does not say %q:\n%s\n%s", code, want, said, o.lastLog())
			}
		}
		if strings.Contains(said, "\x1b") {
			t.Errorf("it has escape sequences:\n%q", said)
		}
	})
	if r := o.must("plan"); !strings.Contains(r.stdout, "Nothing to do") {
		t.Errorf("something is left: %s", r)
	}
}

// seat is a terminal that mi-lb runs on.
type seat struct {
	*child.Process
	t      *testing.T
	file   *os.File
	screen vt10x.Terminal
	all    output
	read   chan struct{} // closed when nobody has the terminal open any more

	resizing sync.Mutex
}

// sit runs "mi-lb bootstrap" on a terminal of that size.
func (o *operator) sit(t *testing.T, width, height int, environment ...string) *seat {
	t.Helper()
	s := &seat{t: t, screen: vt10x.New(vt10x.WithSize(width, height)), read: make(chan struct{})}
	command := o.command()
	command.Env = append(slices.DeleteFunc(command.Env, func(v string) bool { return strings.HasPrefix(v, "NO_COLOR=") }), environment...)
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	var err error
	s.Process, err = child.StartWith(command, syscall.SIGKILL, func() (err error) {
		s.file, err = pty.StartWithAttrs(command, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}, command.SysProcAttr)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	go s.show()
	t.Cleanup(func() {
		s.End(syscall.SIGKILL, limit)
		<-s.read
		_ = s.file.Close()
	})
	return s
}

// show shows what is printed, until nobody has the terminal open any more.
func (s *seat) show() {
	defer close(s.read)
	buffer := make([]byte, 32<<10)
	for {
		n, err := s.file.Read(buffer)
		_, _ = s.all.Write(buffer[:n])
		s.resizing.Lock()
		_, _ = s.screen.Write(buffer[:n])
		s.resizing.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *seat) types(text string) {
	s.t.Helper()
	if _, err := s.file.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

func (s *seat) resize(width, height int) {
	s.t.Helper()
	s.resizing.Lock()
	defer s.resizing.Unlock()
	s.screen.Resize(width, height)
	if err := pty.Setsize(s.file, &pty.Winsize{Cols: uint16(width), Rows: uint16(height)}); err != nil {
		s.t.Fatal(err)
	}
}

// shown is what is on the screen: its lines, with single spaces.
func (s *seat) shown() string {
	s.resizing.Lock()
	defer s.resizing.Unlock()
	var lines []string
	for line := range strings.Lines(s.screen.String()) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

// raw is all that was ever printed.
func (s *seat) raw() string { return s.all.String() }

// until returns when all of that is on the screen.
func (s *seat) until(what string, words ...string) {
	s.t.Helper()
	begun := time.Now()
	for {
		shown, missing := s.shown(), ""
		for _, word := range words {
			if !strings.Contains(shown, word) {
				missing = word
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-s.Ended():
			s.t.Fatalf("it ended before this was seen: %s (%q)\n%s", what, missing, s.raw())
		case <-time.After(20 * time.Millisecond):
		}
		if time.Since(begun) > limit {
			s.t.Fatalf("not seen: %s (%q)\n%s", what, missing, shown)
		}
	}
}

// wait returns the exit code when it has ended, or the negative signal that ended it.
func (s *seat) wait() int {
	s.t.Helper()
	select {
	case <-s.Ended():
	case <-time.After(limit):
		s.t.Fatalf("it does not end:\n%s", s.shown())
	}
	<-s.read // all that it printed is shown
	if s.Err() == nil {
		return 0
	}
	var exit *exec.ExitError
	if !errors.As(s.Err(), &exit) {
		s.t.Fatal(s.Err())
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return -int(status.Signal())
	}
	return exit.ExitCode()
}
