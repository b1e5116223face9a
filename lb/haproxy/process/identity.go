package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// master is the process of a running master. Its descriptor stays that of this one
// process, whatever becomes of the pid.
type master struct {
	pid   int
	pidfd int
	// gone is closed when the process has ended.
	gone chan struct{}

	once sync.Once
	quit chan struct{}
}

// watchMaster begins to watch the process. It is an error ([unix.ESRCH]) if there is
// none.
func watchMaster(pid int) (*master, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch HAProxy's master %d: %w", pid, err)
	}
	m := &master{pid: pid, pidfd: fd, gone: make(chan struct{}), quit: make(chan struct{})}
	go m.watch()
	return m, nil
}

func (m *master) watch() {
	defer func() { _ = unix.Close(m.pidfd) }()
	for {
		// The process's end wakes the poll at once; the time is only for being told
		// to stop watching.
		fds := []unix.PollFd{{Fd: int32(m.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 500)
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			close(m.gone)
			return
		}
		select {
		case <-m.quit:
			return
		default:
		}
	}
}

// forget ends the watching, not the process.
func (m *master) forget() { m.once.Do(func() { close(m.quit) }) }

// signal is safe after the process has ended: a pid that is somebody else's by now
// gets nothing.
func (m *master) signal(s unix.Signal) error {
	select {
	case <-m.gone:
		return unix.ESRCH
	default:
		return unix.PidfdSendSignal(m.pidfd, s, nil, 0)
	}
}

// wait is true if the process ended within the time.
func (m *master) wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-m.gone:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	select {
	case <-m.gone:
		return true
	default:
		return false
	}
}

// masterRuns says whether there is a process with the arguments of a master that has the
// socket: one, or a worker, whose are the same.
func masterRuns(masterSocket string) (bool, error) {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return false, fmt.Errorf("look for a master with the socket %s: %w", masterSocket, err)
	}
	for _, p := range processes {
		if pid, err := strconv.Atoi(p.Name()); err == nil && verify(pid, masterSocket, nil) == nil {
			return true, nil
		}
	}
	return false, nil
}

// errExecuting: a process has no arguments while it executes a program.
var errExecuting = errors.New("it is just executing a program")

// verify checks by its command line that the process is a HAProxy master with our
// master socket which runs from our files.
func verify(pid int, masterSocket string, files []string) error {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if err != nil {
		return fmt.Errorf("who is %d: %w", pid, err)
	}
	if len(raw) == 0 {
		return fmt.Errorf("who is %d: %w", pid, errExecuting)
	}
	args := strings.Split(string(bytes.TrimRight(raw, "\x00")), "\x00")
	sockets, running, mode := commandLine(args)
	switch {
	case !mode:
		return fmt.Errorf("%w: process %d is %q, not a HAProxy master (-W or -Ws)", ErrNotOurs, pid, strings.Join(args, " "))
	case !slices.Contains(sockets, masterSocket):
		return fmt.Errorf("%w: the master socket of HAProxy %d is %s, not %s", ErrNotOurs, pid, strings.Join(sockets, ", "), masterSocket)
	case len(files) > 0 && !slices.Equal(running, files):
		return fmt.Errorf("%w: HAProxy %d runs from %s, not from %s", ErrNotOurs, pid, strings.Join(running, ", "), strings.Join(files, ", "))
	}
	return nil
}

// commandLine finds the master sockets and files in a HAProxy's arguments, and
// whether they ask for master-worker mode.
func commandLine(args []string) (sockets, files []string, masterWorker bool) {
	for i := 1; i < len(args); i++ {
		switch args[i] {
		case "-W", "-Ws":
			masterWorker = true
		case "-S":
			if i++; i < len(args) {
				path, _, _ := strings.Cut(args[i], ",")
				sockets = append(sockets, strings.TrimPrefix(path, "unix@"))
			}
		case "-f":
			// One -f may be followed by several files.
			for i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
				files = append(files, args[i])
			}
		case "--":
			return sockets, append(files, args[i+1:]...), masterWorker
		}
	}
	return sockets, files, masterWorker
}
