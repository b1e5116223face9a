package registrator

import (
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// stops says whether a signal that a container was sent is meant to end it: its
// own stop signal, SIGTERM or SIGKILL. Others (SIGHUP to reload, SIGUSR1) are not.
func stops(c *Container, signal string) bool {
	sent := signalNumber(signal)
	if sent == 0 {
		return false
	}
	return sent == unix.SIGKILL || sent == unix.SIGTERM || sent == signalNumber(c.Config.StopSignal)
}

// signalNumber reads "15", "TERM" or "SIGTERM"; 0 where it is none.
func signalNumber(text string) unix.Signal {
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return unix.Signal(n)
	}
	name := strings.ToUpper(text)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	return unix.SignalNum(name)
}
