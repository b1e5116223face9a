package sandbox_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mi-lb/mi-lb/test/sandbox"
)

// command is cmd/sandbox on addresses of the test's own, writing below temporary.
func command(t *testing.T, temporary string, arguments ...string) (*exec.Cmd, *output) {
	t.Helper()
	milb := binary(t)
	path := filepath.Join(filepath.Dir(milb), "sandbox")
	if _, err := os.Stat(path); err != nil {
		if out, err := exec.Command("go", "build", "-o", path, "./cmd/sandbox").CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	all := []string{"--mi-lb=" + milb}
	for i, dc := range []string{"dc1", "dc2"} {
		all = append(all, fmt.Sprintf("--%s.address=127.78.%d.1", dc, 2*i+4))
		for _, part := range []string{"marathon", "consul", "http", "admin"} {
			all = append(all, "--"+dc+"."+part+"=0")
		}
	}
	c := exec.Command(path, append(all, arguments...)...)
	c.Env = append(os.Environ(), "TMPDIR="+temporary)
	// As a shell does it for what it runs in the foreground.
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out := &output{}
	c.Stdout, c.Stderr = out, out
	return c, out
}

// output is what a program has printed so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func (o *output) has(text string) func() error {
	return func() error {
		if !strings.Contains(o.String(), text) {
			return fmt.Errorf("no %q in:\n%s", text, o)
		}
		return nil
	}
}

func TestTheTryOutWorksAsItIsPrinted(t *testing.T) {
	temporary := shortTempDir(t)
	c, out := command(t, temporary, "--check")
	if err := c.Run(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, line := range []string{
		"ready after ", "\ncurl -X POST ", "\ncurl -H \"Host: webserver.mi-lb.example.com\" http://127.78.4.1:", "\ncurl http://127.78.4.1:9000/\n",
		"\ncurl -H \"Host: webserver.mi-lb.example.com\" http://127.78.6.1:", "\ncurl http://127.78.6.1:9000/\n", " explain :9000 --admin ", "/ui/\n",
		"all of it is as it should be",
	} {
		if err := out.has(line)(); err != nil {
			t.Error(err)
		}
	}
	nothingLeft(t, temporary)
}

// TestTheUsualAddressesAreThoseThatPeopleKnow: the three lines of the README.
func TestTheUsualAddressesAreThoseThatPeopleKnow(t *testing.T) {
	dc1 := sandbox.Usual()[0]
	if dc1.Address.String() != "127.0.0.1" || dc1.Marathon != 8080 || dc1.HTTP != 8000 {
		t.Errorf("%+v", dc1)
	}
}

func TestHoweverTheCommandEndsNothingIsLeft(t *testing.T) {
	const ready = "Ctrl-C ends it"
	for name, test := range map[string]struct {
		end func(c *exec.Cmd) error
		at  string
		// ends is the exit code; -1 for a signal's.
		code int
	}{
		"Ctrl-C":                 {func(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) }, ready, 0},
		"SIGTERM":                {func(c *exec.Cmd) error { return c.Process.Signal(syscall.SIGTERM) }, ready, 0},
		"Ctrl-C while it starts": {func(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGINT) }, "starting", 1},
		"SIGKILL":                {func(c *exec.Cmd) error { return c.Process.Kill() }, ready, -1},
		"SIGKILL of its group":   {func(c *exec.Cmd) error { return syscall.Kill(-c.Process.Pid, syscall.SIGKILL) }, ready, -1},
	} {
		t.Run(name, func(t *testing.T) {
			temporary := shortTempDir(t)
			c, out := command(t, temporary)
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- c.Wait() }()
			t.Cleanup(func() {
				_ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
			})
			until(t, "it says "+test.at, out.has(test.at))
			if test.at == ready {
				if left := processesOf(temporary); len(left) < 6 {
					t.Errorf("the test does not see the processes: %v", left)
				}
				// A task too.
				deploy := fmt.Sprintf("%s/task.sh", temporary)
				_, line, _ := strings.Cut(out.String(), "\ncurl -X POST ")
				line, _, _ = strings.Cut(line, "}}}'\n")
				if err := os.WriteFile(deploy, []byte("curl -sSf -X POST "+line+"}}}'\n"), 0o600); err != nil {
					t.Fatal(err)
				}
				if said, err := exec.Command("/bin/sh", deploy).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, said)
				}
				until(t, "the app's port is open", func() error {
					conn, err := net.Dial("tcp", "127.78.6.1:9000")
					if err == nil {
						conn.Close()
					}
					return err
				})
				os.Remove(deploy)
			}
			if err := test.end(c); err != nil {
				t.Fatal(err)
			}
			err := <-ended
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.ExitCode() != test.code || err == nil && test.code != 0 {
				t.Errorf("it ended with %v, want %d:\n%s", err, test.code, out)
			}
			// The guard of one that was killed takes a moment.
			until(t, "all processes are gone", func() error {
				if left := processesOf(temporary); len(left) > 0 {
					return errors.New(strings.Join(left, "\n"))
				}
				return nil
			})
			until(t, "all files are gone", func() error {
				left, err := os.ReadDir(temporary)
				if err == nil && len(left) > 0 {
					err = fmt.Errorf("%v", left)
				}
				return err
			})
		})
	}
}

func TestTheCommandSaysWhichPortIsTaken(t *testing.T) {
	listener, err := net.Listen("tcp", "127.78.4.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	temporary := shortTempDir(t)
	c, out := command(t, temporary, fmt.Sprintf("--dc1.http=%d", port))
	var exit *exec.ExitError
	if err := c.Run(); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v", err)
	}
	want := fmt.Sprintf("port %d on 127.78.4.1, for the edge's HTTP in dc1, is taken; choose another with --dc1.http=PORT, or make demo DEMO=--dc1.http=PORT", port)
	if err := out.has(want)(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, temporary)
}
