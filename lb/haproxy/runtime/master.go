package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Master speaks to the master of a master-worker HAProxy (haproxy -W -S SOCKET).
type Master struct {
	socket  string
	timeout time.Duration
}

// NewMaster is a client of the master socket at the path. Nothing is dialled yet.
func NewMaster(socket string) *Master { return &Master{socket: socket, timeout: defaultTimeout} }

// Socket is the path of the master socket.
func (m *Master) Socket() string { return m.socket }

// Processes are the master and its workers.
type Processes struct {
	Master int
	// Reloads counts the reloads asked for since the master started, those that
	// failed included.
	Reloads int
	// Failed counts the reloads that failed since the last one that did not.
	Failed int
	// Workers are the pids of those that accept connections: one, or none in the
	// middle of a start.
	Workers []int
	// Old are the pids of those that only finish what they have.
	Old     []int
	Version string
}

// Worker is the worker that accepts connections, 0 for none.
func (p Processes) Worker() int {
	if len(p.Workers) == 0 {
		return 0
	}
	return p.Workers[0]
}

// Processes asks for `show proc`. It waits, as long as the context and 10 s, for a
// master that is in the middle of starting itself anew.
func (m *Master) Processes(ctx context.Context) (Processes, error) {
	// The master's own commands know no severity, so its version is the separator,
	// as for a worker.
	text, err := exchange(ctx, m.socket, m.timeout, []byte("show version;show proc;show version;quit\n"))
	if err != nil {
		return Processes{}, fmt.Errorf("show proc on %s: %w", m.socket, err)
	}
	version, rest, ok := strings.Cut(string(text), "\n\n")
	table, end, closed := strings.Cut(rest, "\n"+version+"\n")
	if !ok || !closed || strings.TrimSpace(end) != "" {
		return Processes{}, fmt.Errorf("show proc on %s: %w", m.socket, ErrTruncated)
	}
	p, err := ParseProcesses(table)
	if err != nil {
		return Processes{}, err
	}
	p.Version = version
	return p, nil
}

// ParseProcesses reads the answer to `show proc`.
func ParseProcesses(text string) (Processes, error) {
	var p Processes
	section := ""
	reloads := map[int]int{} // of old workers
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if name, ok := strings.CutPrefix(line, "#"); ok {
			section = strings.TrimSpace(name)
			continue
		}
		fields := strings.Fields(line)
		pid, err := strconv.Atoi(fields[0])
		if err != nil || pid <= 0 || len(fields) < 3 {
			return Processes{}, fmt.Errorf("show proc: cannot read %.200q", line)
		}
		switch {
		case fields[1] == "master":
			p.Master = pid
			if p.Reloads, err = strconv.Atoi(fields[2]); err != nil {
				return Processes{}, fmt.Errorf("show proc: reloads in %.200q: %w", line, err)
			}
			if _, failed, ok := strings.Cut(line, "[failed: "); ok {
				failed, _, _ = strings.Cut(failed, "]")
				if p.Failed, err = strconv.Atoi(failed); err != nil {
					return Processes{}, fmt.Errorf("show proc: failed in %.200q: %w", line, err)
				}
			}
		case fields[1] == "worker" && section == "old workers":
			p.Old = append(p.Old, pid)
			if reloads[pid], err = strconv.Atoi(fields[2]); err != nil {
				return Processes{}, fmt.Errorf("show proc: reloads in %.200q: %w", line, err)
			}
		case fields[1] == "worker":
			p.Workers = append(p.Workers, pid)
		}
	}
	if p.Master == 0 {
		return Processes{}, errors.New("show proc: no master in the answer")
	}
	// From 3.1 on, the worker that serves on after a reload that failed is listed as an
	// old one: the one that has seen the fewest reloads.
	if len(p.Workers) == 0 && p.Failed > 0 && len(p.Old) > 0 {
		last := slices.MinFunc(p.Old, func(a, b int) int { return cmp.Compare(reloads[a], reloads[b]) })
		p.Workers = []int{last}
		p.Old = slices.DeleteFunc(p.Old, func(pid int) bool { return pid == last })
	}
	return p, nil
}

// ReloadReply is what a master answered to `reload`.
type ReloadReply struct {
	// Answered is false for HAProxy before 2.7, which says nothing.
	Answered bool
	Success  bool
	// Log is what the new worker wrote while it started.
	Log string
}

// Reload asks for a reload. From HAProxy 2.7 on it returns when the reload is done
// and says how it went; before, it returns at once and [Master.Processes] tells.
func (m *Master) Reload(ctx context.Context) (ReloadReply, error) {
	deadline := 2 * time.Minute
	text, err := exchange(ctx, m.socket, deadline, []byte("reload;quit\n"))
	// A master before 2.7 becomes its own successor with the connection open, which
	// may show as a reset.
	if err != nil && (ctx.Err() != nil || !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE)) {
		return ReloadReply{}, fmt.Errorf("reload on %s: %w", m.socket, err)
	}
	return ParseReload(string(text)), nil
}

// ParseReload reads the answer to `reload`: nothing, or "Success=1", "--" and the
// log.
func ParseReload(text string) ReloadReply {
	rest, ok := strings.CutPrefix(strings.TrimLeft(text, "\n"), "Success=")
	if !ok {
		return ReloadReply{}
	}
	outcome, log, _ := strings.Cut(rest, "\n")
	log = strings.TrimPrefix(log, "--\n")
	return ReloadReply{Answered: true, Success: strings.TrimSpace(outcome) == "1", Log: strings.TrimSpace(log)}
}

// Listener is the pid of the process that listens on the master socket, as the
// kernel knows it.
func (m *Master) Listener(ctx context.Context) (int, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", m.socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("who listens on %s: %w", m.socket, err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("who listens on %s: %w", m.socket, err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("who listens on %s: %w", m.socket, credErr)
	}
	return int(cred.Pid), nil
}
