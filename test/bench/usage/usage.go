package usage

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc, the same on every Linux that Go knows.
const tick = 10 * time.Millisecond

// CPU is the time that the processes have used, that of their children that have
// ended included.
func CPU(pids ...int) time.Duration {
	var sum time.Duration
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// The name, in parentheses, may hold anything.
		_, rest, ok := strings.Cut(string(stat[max(0, bytes.LastIndexByte(stat, ')')):]), " ")
		fields := strings.Fields(rest)
		if !ok || len(fields) < 15 {
			continue
		}
		for _, field := range fields[11:15] { // utime stime cutime cstime
			n, _ := strconv.ParseInt(field, 10, 64)
			sum += time.Duration(n) * tick
		}
	}
	return sum
}

// Memory is the processes' resident memory in bytes, now.
func Memory(pids ...int) int64 { return memory("VmRSS:", pids) }

// PeakMemory is the most resident memory each of them has ever had, in sum.
func PeakMemory(pids ...int) int64 { return memory("VmHWM:", pids) }

func memory(key string, pids []int) int64 {
	var sum int64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			if value, ok := strings.CutPrefix(line, key); ok {
				kB, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
				sum += kB << 10
			}
		}
	}
	return sum
}

// Descriptors is how many files and sockets the processes have open.
func Descriptors(pids ...int) int {
	n := 0
	for _, pid := range pids {
		if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
			n += len(entries)
		}
	}
	return n
}

// Connections is how many established TCP connections the process has to a port.
func Connections(pid, port int) int {
	own := map[string]bool{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid)) // the pattern is a good one
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil {
			if inode, ok := strings.CutPrefix(target, "socket:["); ok {
				own[strings.TrimSuffix(inode, "]")] = true
			}
		}
	}
	n := 0
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			continue
		}
		remote := fmt.Sprintf(":%04X", port)
		for lines := bufio.NewScanner(file); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			const established = "01"
			if len(fields) > 9 && fields[3] == established && strings.HasSuffix(fields[2], remote) && own[fields[9]] {
				n++
			}
		}
		file.Close()
	}
	return n
}

// Matching are the ids of processes whose command lines, arguments separated by NUL,
// contain the text.
func Matching(text string) []int {
	var pids []int
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is a good one
	for _, path := range paths {
		line, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(line, []byte(text)) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
