package process_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
)

func TestReloadsUnderLoadFailNoRequest(t *testing.T) {
	for name, keepAlive := range map[string]bool{"keep-alive": true, "a connection per request": false} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			p, state := s.start()
			asked, stop := s.load(4, keepAlive)
			for i := range 20 {
				generation := fmt.Sprint("g", i)
				s.write(generation, "")
				before := asked.Load()
				next, err := p.Reload(t.Context(), process.Request{Reason: "test", Generation: generation})
				if err != nil {
					t.Fatal(err)
				}
				if next.Worker == state.Worker || next.Master != state.Master || next.Description != generation {
					t.Fatalf("reload %d: %+v after %+v", i, next, state)
				}
				state = next
				haproxytest.Until(t, "requests go on", func() error {
					if asked.Load() < before+20 {
						return errors.New("too few")
					}
					return nil
				})
			}
			if failed := stop(); len(failed) > 0 {
				t.Errorf("%d of %d requests failed: %v", len(failed), asked.Load(), failed[0])
			}
			haproxytest.Until(t, "old workers end", func() error {
				state, err := p.State(t.Context())
				if err == nil && len(state.Old) > 0 {
					err = fmt.Errorf("old workers %v", state.Old)
				}
				return err
			})
		})
	}
}

func TestAReloadThatSomebodyElseRacesIsNotLost(t *testing.T) {
	s := newSite(t)
	p, state := s.start()
	for i := range 10 {
		// The master is told to start itself anew the moment before, with the old files:
		// in between it forgets what it is asked.
		if err := syscall.Kill(state.Master, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		generation := fmt.Sprint("raced-", i)
		s.write(generation, "")
		var err error
		if state, err = p.Reload(t.Context(), process.Request{Reason: "race", Generation: generation}); err != nil {
			t.Fatal(err)
		}
		info, err := p.Runtime().Info(t.Context())
		if err != nil || info.Description != generation {
			t.Fatalf("runs %q, %v; want %q", info.Description, err, generation)
		}
	}
}

func TestAConfigurationThatIsNotValidLeavesTheRunningOne(t *testing.T) {
	s := newSite(t)
	p, state := s.start()
	_, stop := s.load(2, true)
	s.write("2", "\tbogus thing\n")

	validation, err := process.Validate(t.Context(), s.cfg.Path, s.cfg.Files...)
	if err != nil || validation.Valid {
		t.Fatalf("%+v, %v", validation, err)
	}
	var invalid *process.InvalidError
	if !errors.As(validation.Err(), &invalid) || len(invalid.Alerts) != 1 || invalid.Alerts[0].File != s.cfg.Files[0] || invalid.Alerts[0].Line != 19 || !strings.Contains(invalid.Error(), "bogus") {
		t.Errorf("validation: %v, alerts %+v", validation.Err(), invalid)
	}

	for range 2 {
		_, err = p.Reload(t.Context(), process.Request{Reason: "test"})
		var failed *process.FailedError
		if !errors.As(err, &failed) || !strings.Contains(err.Error(), "bogus") || failed.Alerts[0].Line != 19 {
			t.Fatalf("reload: %v", err)
		}
		now, err := p.State(t.Context())
		if err != nil || now.Worker != state.Worker || len(now.Old) > 0 {
			t.Errorf("worker %+v, %v; was %+v", now, err, state)
		}
	}
	s.write("3", "")
	if _, err := p.Reload(t.Context(), process.Request{Reason: "repaired", Generation: "3"}); err != nil {
		t.Error(err)
	}
	if failed := stop(); len(failed) > 0 {
		t.Errorf("%d requests failed: %v", len(failed), failed[0])
	}
}

func TestAPortThatIsTakenIsToldBeforeAndByHAProxy(t *testing.T) {
	s := newSite(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	if err := process.Bindable(t.Context(), netip.MustParseAddrPort(taken.Addr().String())); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a taken port: %v", err)
	}
	if err := process.Bindable(t.Context(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(s.port))); err != nil {
		t.Error(err)
	}
	s.write("1", "frontend taken\n\tbind "+taken.Addr().String()+"\n\tdefault_backend web\n")
	_, err = s.open().Start(t.Context())
	var failed *process.FailedError
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("start: %v", err)
	}
}

func TestWhatIsKilledServesAgain(t *testing.T) {
	for name, pid := range map[string]func(process.State) int{
		"master": func(s process.State) int { return s.Master },
		"worker": func(s process.State) int { return s.Worker },
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			p, state := s.start()
			supervise(t, p)
			for range 3 {
				if err := syscall.Kill(pid(state), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				again := event(t, p, process.Restarted).State
				if again.Master == state.Master || again.Worker == state.Worker {
					t.Errorf("%+v after %+v", again, state)
				}
				if err := s.get(); err != nil {
					t.Error(err)
				}
				t.Logf("serves again after %s", time.Since(begin))
				state = again
			}
		})
	}
}

func TestAConfigurationThatCannotStartIsTriedAgain(t *testing.T) {
	s := newSite(t)
	p, state := s.start()
	supervise(t, p)
	s.write("2", "\tbogus\n")
	if err := syscall.Kill(state.Master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		if lost := event(t, p, process.Lost); lost.Err != nil {
			if !strings.Contains(lost.Err.Error(), "bogus") {
				t.Errorf("lost: %v", lost.Err)
			}
			break
		}
	}
	s.write("3", "")
	if got := event(t, p, process.Restarted); got.State.Description != "3" {
		t.Errorf("restarted: %+v", got)
	}
}

// The master of HAProxy 2.6 does not listen while it executes itself anew.
func TestAHAProxyThatIsBeingReloadedIsTakenOverToo(t *testing.T) {
	s := newSite(t)
	first := s.open()
	state, err := first.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := syscall.Kill(state.Master, syscall.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		var adopted process.State
		// From before the signal is noticed until after it was.
		for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end); {
			second, err := process.New(s.cfg)
			if err != nil {
				t.Fatal(err)
			}
			adopted, err = second.Adopt(t.Context())
			if err := errors.Join(err, second.Close()); err != nil {
				t.Fatal(err)
			}
			if adopted.Master != state.Master {
				t.Fatalf("adopted %+v, was %+v", adopted, state)
			}
		}
	}
}

func TestARunningHAProxyIsTakenOverWithoutAReload(t *testing.T) {
	s := newSite(t)
	first, err := process.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Adopt(t.Context()); !errors.Is(err, process.ErrNotRunning) {
		t.Fatalf("nothing runs: %v", err)
	}
	second := s.open()
	state, err := first.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_, stop := s.load(2, true)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	adopted, err := second.Adopt(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if adopted.Master != state.Master || adopted.Worker != state.Worker {
		t.Errorf("adopted %+v, was %+v", adopted, state)
	}
	if failed := stop(); len(failed) > 0 {
		t.Errorf("%d requests failed: %v", len(failed), failed[0])
	}
	supervise(t, second)
	s.write("2", "")
	if state, err = second.Reload(t.Context(), process.Request{Reason: "test", Generation: "2"}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(state.Master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	event(t, second, process.Restarted)
	if err := s.get(); err != nil {
		t.Error(err)
	}

	other := s.cfg
	other.Files = []string{"/somewhere/else.cfg"}
	stranger, err := process.New(other)
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if _, err := stranger.Adopt(t.Context()); !errors.Is(err, process.ErrNotOurs) {
		t.Errorf("other files: %v", err)
	}
}

// TestStarterThatIsKilled is the program that starts HAProxy and is then killed; it
// does nothing unless it is told to be that.
func TestStarterThatIsKilled(t *testing.T) {
	dir := os.Getenv("PROCESS_TEST_STARTER")
	if dir == "" {
		return
	}
	p, err := process.New(process.Config{
		Path: haproxytest.Path(t), Files: []string{filepath.Join(dir, "haproxy.cfg")},
		MasterSocket: filepath.Join(dir, "m.sock"), RuntimeSocket: filepath.Join(dir, "s.sock"), Output: filepath.Join(dir, "out"), Managed: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("STARTED")
	select {}
}

func TestHAProxyOutlivesAStarterThatIsKilled(t *testing.T) {
	s := newSite(t)
	p := s.open()
	starter := exec.Command(os.Args[0], "-test.run", "^TestStarterThatIsKilled$")
	starter.Env = append(os.Environ(), "PROCESS_TEST_STARTER="+filepath.Dir(s.cfg.Files[0]))
	out, err := starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := starter.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 7)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "STARTED" {
		t.Fatalf("%q, %v", buf, err)
	}
	_, stop := s.load(2, false)
	if err := starter.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = starter.Wait()
	if _, err := p.Adopt(t.Context()); err != nil {
		t.Fatal(err)
	}
	// More messages than the pipe holds, with nobody reading: the worker must not
	// wait for one.
	s.write("2", "")
	if _, err := p.Reload(t.Context(), process.Request{Reason: "test", Generation: "2"}); err != nil {
		t.Fatal(err)
	}
	if failed := stop(); len(failed) > 0 {
		t.Errorf("%d requests failed: %v", len(failed), failed[0])
	}
	haproxytest.Until(t, "messages of the adopted HAProxy are logged", func() error {
		if !strings.Contains(s.log.String(), "Reloading HAProxy") && !strings.Contains(s.log.String(), "New worker") {
			return errors.New("none yet")
		}
		return nil
	})
}

func TestHAProxyServesOnWhenNobodyReadsItsMessages(t *testing.T) {
	s := newSite(t)
	p, err := process.New(s.cfg)
	if err != nil {
		t.Fatal(err)
	}
	again := s.open()
	if _, err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = p.Close()
	// Each change of a server's state is a line; these are four times what a pipe holds.
	cmds := make([]string, 4000)
	for i := range cmds {
		cmds[i] = "set server web/a state " + []string{"maint", "ready"}[i%2]
	}
	if _, err := p.Runtime().Exec(t.Context(), cmds); err != nil {
		t.Fatal(err)
	}
	if err := s.get(); err != nil {
		t.Error(err)
	}
	if _, err := again.Adopt(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAttachedHAProxyIsWatchedAndReloadedButNeverStartedOrStopped(t *testing.T) {
	s := newSite(t)
	owner, state := s.start()
	attached := s.cfg
	attached.Managed, attached.Output = false, ""
	p, err := process.New(attached)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.Start(t.Context()); !errors.Is(err, process.ErrNotManaged) {
		t.Errorf("start: %v", err)
	}
	if err := p.Stop(t.Context(), 0); !errors.Is(err, process.ErrNotManaged) {
		t.Errorf("stop: %v", err)
	}
	got, err := p.Adopt(t.Context())
	if err != nil || got.Worker != state.Worker {
		t.Fatalf("%+v, %v", got, err)
	}
	supervise(t, p)
	event(t, p, process.Adopted)

	s.write("2", "\tbogus\n")
	if _, err := p.Reload(t.Context(), process.Request{Reason: "test"}); err == nil || !strings.Contains(err.Error(), "bogus") {
		t.Errorf("a reload that fails says %v", err)
	}
	s.write("3", "")
	if _, err := p.Reload(t.Context(), process.Request{Reason: "test", Generation: "3"}); err != nil {
		t.Fatal(err)
	}
	s.write("4", "")
	if _, err := owner.Reload(t.Context(), process.Request{Reason: "the owner's", Generation: "4"}); err != nil {
		t.Fatal(err)
	}
	if e := event(t, p, process.Foreign); e.State.Description != "4" {
		t.Errorf("the owner's reload: %+v", e)
	}
	supervise(t, owner)
	now, err := owner.State(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(now.Master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	haproxytest.Until(t, "the new master is found", func() error {
		if last := p.Last(); last.Master == now.Master || last.Worker == 0 {
			return fmt.Errorf("last %+v", last)
		}
		return nil
	})
}

func TestStopDrainsOrEndsAtOnce(t *testing.T) {
	s := newSite(t)
	release := make(chan struct{})
	arrived := make(chan struct{})
	slow := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { close(arrived); <-release; fmt.Fprint(w, "slow") })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = slow.Serve(l) }()
	t.Cleanup(func() { _ = slow.Close() })
	s.origin = l.Addr().String()
	s.write("1", "")
	p, state := s.start()
	answer := make(chan error, 1)
	go func() { answer <- s.get() }()
	<-arrived
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop(context.Background(), 15*time.Second) }()
	haproxytest.Until(t, "the listener is closed", func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		if err == nil {
			_ = conn.Close()
			return errors.New("still open")
		}
		return nil
	})
	close(release)
	if err := <-answer; err != nil {
		t.Errorf("the request under way: %v", err)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	haproxytest.Until(t, "the master is gone", func() error {
		if err := syscall.Kill(state.Master, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("signal it: %w", err)
		}
		return nil
	})
}

func TestReloadsKeepTheirDistance(t *testing.T) {
	s := newSite(t)
	s.cfg.Policy = process.Policy{MinInterval: 300 * time.Millisecond, MaxOldWorkers: 1, OldWorkerWait: 300 * time.Millisecond}
	p, _ := s.start()
	// A connection that stays keeps an old worker alive.
	conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n"); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for range 3 {
		if _, err := p.Reload(t.Context(), process.Request{Reason: "test"}); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(begin); took < 600*time.Millisecond {
		t.Errorf("three reloads within %s", took)
	}
	if !strings.Contains(s.log.String(), "linger") {
		t.Error("the lingering old worker was not told of")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := p.Reload(ctx, process.Request{Reason: "test"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a reload without time: %v", err)
	}
}
