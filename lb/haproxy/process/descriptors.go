package process

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Descriptors raises how many files this process may have open, and with it a HAProxy
// that it starts, to as many as wanted or as it is allowed to, and returns how many
// those are. It never lowers them.
func Descriptors(wanted int) (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	most := max(limit.Max, uint64(wanted))
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
		// More than the hard limit is for those with CAP_SYS_RESOURCE.
		most = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return 0, fmt.Errorf("raise the limit of open files from %d to %d: %w", limit.Cur, most, err)
		}
	}
	return int(min(most, math.MaxInt)), nil
}

// scarce is how many connections are so few that an operator had better know.
const scarce = 1000

// limits tells of a HAProxy that can take few connections, or fewer than it thinks.
func (p *Process) limits(s State) {
	attributes := []any{"connections", s.MaxConn, "open_files", s.Descriptors, "could_open", s.MostSockets}
	const advice = "raise the limit of open files (LimitNOFILE= of the unit, ulimit -n): a connection takes two, and a check of a server one while it lasts"
	switch {
	case s.Descriptors == 0: // it did not say
	case 2*s.MaxConn > s.Descriptors:
		p.log.Warn("HAProxy's maxconn is more than its limit of open files allows; "+advice, attributes...)
	case s.MaxConn < scarce:
		p.log.Warn("HAProxy takes few connections at a time; "+advice+", or haproxy.maxconn", attributes...)
	}
}
