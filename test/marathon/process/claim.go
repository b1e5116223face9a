package process

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Claim is a number that no other program on the machine, of those that use
// this package, has claimed: a port that a command is about to listen on. It
// ends with the program in any case.
type Claim struct{ fd int }

// ClaimPort claims a port number; the error is EADDRINUSE if it is claimed.
func ClaimPort(number int) (*Claim, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("claim port %d: %w", number, err)
	}
	// An abstract name: no file, and gone with the socket.
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@mi-lb/test/marathon/port/%d", number)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("claim port %d: %w", number, err)
	}
	return &Claim{fd: fd}, nil
}

// Close gives the number up; once.
func (c *Claim) Close() { unix.Close(c.fd) }
