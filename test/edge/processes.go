package edge

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// process is one of HAProxy's, held by a descriptor: what ends meanwhile is never
// mistaken for another process with its number.
type process struct {
	pid int
	fd  int
}

// processesOf are HAProxy's processes, masters and workers, that have their master
// socket in the folder.
func processesOf(dir string) []process {
	var found []process
	paths, _ := filepath.Glob("/proc/[0-9]*") // the pattern is a good one
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil || !runsFrom(pid, dir) {
			continue
		}
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // ended
		}
		// Only now is the number certain to stay this process's.
		if !runsFrom(pid, dir) {
			unix.Close(fd)
			continue
		}
		found = append(found, process{pid, fd})
	}
	return found
}

func runsFrom(pid int, dir string) bool {
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && bytes.Contains(line, []byte("\x00-S\x00"+dir+"/"))
}

// kill ends the process and returns when it is gone.
func (p process) kill() error {
	_ = unix.PidfdSendSignal(p.fd, unix.SIGKILL, nil, 0)
	for deadline := time.Now().Add(10 * time.Second); ; {
		poll := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(max(0, time.Until(deadline)).Milliseconds()))
		if n > 0 {
			return nil
		}
		if err == nil || !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("process %d does not end", p.pid)
		}
	}
}

func (p process) close() { unix.Close(p.fd) }
