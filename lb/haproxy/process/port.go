package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Bindable is nil if HAProxy could bind a listener to the address now: nobody has it,
// or a HAProxy of this user. It is for before a reload that opens the address: a master
// that cannot bind has the worker pause all listeners while it tries again, and one that
// has a listener which cannot be paused ends.
func Bindable(ctx context.Context, address netip.AddrPort) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	l, err := config.Listen(ctx, "tcp", address.String())
	if err != nil {
		return fmt.Errorf("port %d cannot be opened: %w", address.Port(), err)
	}
	return l.Close()
}
