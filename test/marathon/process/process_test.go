package process_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon/process"
)

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never came true: %s", what)
}

func start(t *testing.T, spec process.Spec) *process.Process {
	t.Helper()
	spec.Env = append(os.Environ(), spec.Env...)
	if spec.Dir == "" {
		spec.Dir = t.TempDir()
	}
	p, err := process.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Ended()
	})
	return p
}

func shell(command string) []string { return []string{"/bin/sh", "-c", command} }

func reserve(t *testing.T) *process.Reservation {
	t.Helper()
	for port := 24000; port < 26000; port++ {
		r, err := process.Reserve(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), false)
		if err == nil {
			t.Cleanup(r.Close)
			return r
		}
	}
	t.Fatal("no free port")
	return nil
}

func TestExitCodeIsTheCommands(t *testing.T) {
	for _, test := range []struct {
		command string
		want    int
	}{{"exit 0", 0}, {"exit 7", 7}, {"kill -TERM $$", 143}, {"no-such-command", 127}} {
		t.Run(test.command, func(t *testing.T) {
			if got := start(t, process.Spec{Argv: shell(test.command)}).Exit().Code; got != test.want {
				t.Errorf("exit code %d, want %d", got, test.want)
			}
		})
	}
}

func TestTerminateLetsTheCommandFinish(t *testing.T) {
	dir := t.TempDir()
	p := start(t, process.Spec{Dir: dir, Argv: shell(`trap 'echo bye > said; exit 3' TERM; touch ready; while :; do sleep 0.01; done`)})
	eventually(t, "the command is ready", func() bool { _, err := os.Stat(filepath.Join(dir, "ready")); return err == nil })
	p.Terminate()
	if got := p.Exit().Code; got != 3 {
		t.Errorf("exit code %d, want 3", got)
	}
	if said, err := os.ReadFile(filepath.Join(dir, "said")); err != nil || string(said) != "bye\n" {
		t.Errorf("the command said %q, %v", said, err)
	}
}

func TestDescendantsGoWithTheCommand(t *testing.T) {
	dir := t.TempDir()
	// One in the group, one in a session of its own: signals miss it, the end of
	// the pid namespace does not.
	marker := "86399." + strconv.Itoa(os.Getpid())
	p := start(t, process.Spec{Dir: dir, Argv: shell(`sleep ` + marker + ` & setsid sleep ` + marker + ` & touch ready; wait`)})
	eventually(t, "descendants run", func() bool { return len(withArgument(t, marker)) >= 2 })
	p.Kill()
	<-p.Ended()
	eventually(t, "descendants are gone", func() bool { return len(withArgument(t, marker)) == 0 })
}

// withArgument finds the processes that have the argument.
func withArgument(t *testing.T, argument string) []int {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue // gone meanwhile
		}
		for _, arg := range bytes.Split(line, []byte{0}) {
			if string(arg) == argument {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func TestTwoProcessesListenOnOnePortInTheirOwnNetworks(t *testing.T) {
	address := netip.MustParseAddr("172.17.0.2")
	for _, body := range []string{"one", "two"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
		p := start(t, process.Spec{Dir: dir, Address: address, Argv: shell("exec python3 -m http.server 8080")})
		from := reserve(t)
		if _, err := net.Dial("tcp", from.Addr().String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("before anything listens, dialling gives %v, want it refused", err)
		}
		p.Forward(from, netip.AddrPortFrom(address, 8080))
		var got string
		eventually(t, "the process serves", func() bool {
			response, err := http.Get("http://" + from.Addr().String() + "/")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			read, err := io.ReadAll(response.Body)
			got = string(read)
			return err == nil
		})
		if got != body {
			t.Errorf("got %q, want %q", got, body)
		}
		if err := p.Run(t.Context(), shell("grep -q ':1F90 ' /proc/self/net/tcp")); err != nil {
			t.Errorf("a command beside the process does not see its network: %v", err)
		}
	}
}

func TestLoopbackOfANetworkIsNotForwardedTo(t *testing.T) {
	address := netip.MustParseAddr("172.17.0.3")
	p := start(t, process.Spec{Address: address, Argv: shell("exec python3 -m http.server 8080 --bind 127.0.0.1")})
	eventually(t, "the process listens", func() bool { return p.Listens(8080) })
	if _, err := p.Dial(t.Context(), netip.AddrPortFrom(address, 8080)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialling the network's address gives %v, want it refused", err)
	}
	conn, err := p.Dial(t.Context(), netip.MustParseAddrPort("127.0.0.1:8080"))
	if err != nil {
		t.Fatalf("dial inside: %v", err)
	}
	conn.Close()
}

func TestConnectionsAreRefusedWhileNothingListens(t *testing.T) {
	address := netip.MustParseAddr("172.17.0.5")
	dir := t.TempDir()
	p := start(t, process.Spec{Dir: dir, Address: address, Argv: shell(
		`while :; do python3 -m http.server 8080; while ! test -e again; do sleep 0.01; done; rm again; done`)})
	from := reserve(t)
	p.Forward(from, netip.AddrPortFrom(address, 8080))
	serves := func() bool {
		client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Get("http://" + from.Addr().String() + "/")
		if err == nil {
			response.Body.Close()
		}
		return err == nil
	}
	eventually(t, "it serves", serves)
	for _, pid := range withArgument(t, "http.server") {
		if namespace(t, pid) == namespace(t, p.PID()) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	eventually(t, "connections are refused", func() bool {
		conn, err := net.Dial("tcp", from.Addr().String())
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	if other, err := process.Reserve(from.Addr(), false); err == nil {
		other.Close()
		t.Error("the port could be taken by another meanwhile")
	}
	if err := os.WriteFile(filepath.Join(dir, "again"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it serves again", serves)
}

// namespace is the network namespace of a process.
func namespace(t *testing.T, pid int) string {
	t.Helper()
	link, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return link
}

func TestConnectionsEndWithTheProcess(t *testing.T) {
	address := netip.MustParseAddr("172.17.0.4")
	p := start(t, process.Spec{Address: address, Argv: shell("exec python3 -m http.server 8080")})
	from := reserve(t)
	p.Forward(from, netip.AddrPortFrom(address, 8080))
	var conn net.Conn
	eventually(t, "a connection is accepted", func() bool {
		var err error
		conn, err = net.Dial("tcp", from.Addr().String())
		return err == nil
	})
	defer conn.Close() // late: the port is free also while its connections linger
	p.Kill()
	if _, err := io.ReadAll(conn); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read after the end: %v", err)
	}
	eventually(t, "the port is free again", func() bool {
		again, err := process.Reserve(from.Addr(), true)
		if err == nil {
			again.Close()
		}
		return err == nil
	})
}

func TestRunStopsWithItsContext(t *testing.T) {
	p := start(t, process.Spec{Argv: shell("sleep 1000")})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.Run(ctx, shell("sleep 1000")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the deadline", err)
	}
}

func TestAPortIsClaimedOnce(t *testing.T) {
	claim, err := process.ClaimPort(1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := process.ClaimPort(1); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a claimed port gives %v", err)
	}
	claim.Close()
	again, err := process.ClaimPort(1)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestWhatCannotStartSaysWhy(t *testing.T) {
	_, err := process.Start(process.Spec{Argv: shell("true"), Dir: "/no/such/directory"})
	if err == nil || !strings.Contains(err.Error(), "/no/such/directory") {
		t.Errorf("got %v, want an error naming the directory", err)
	}
	if _, err := process.Start(process.Spec{}); err == nil {
		t.Error("no command was accepted")
	}
}
