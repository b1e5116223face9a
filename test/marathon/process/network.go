package process

import (
	"bufio"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// enterNetwork moves the calling thread into a network namespace of its own,
// with the loopback interface up and address on it. restore moves it back, upon
// which the namespace lives only as long as a process in it.
func enterNetwork(address netip.Addr) (restore func(), err error) {
	before, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		before.Close()
		if errors.Is(err, unix.EPERM) {
			return nil, fmt.Errorf("%w: %w", ErrIsolation, err)
		}
		return nil, fmt.Errorf("create network namespace: %w", err)
	}
	restore = func() {
		_ = unix.Setns(int(before.Fd()), unix.CLONE_NEWNET) // the thread ends in any case
		before.Close()
	}
	if err := raiseLoopback(address); err != nil {
		restore()
		return nil, fmt.Errorf("set up network namespace: %w", err)
	}
	return restore, nil
}

func raiseLoopback(address netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	up, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	up.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, up); err != nil {
		return fmt.Errorf("raise lo: %w", err)
	}
	if address.IsLoopback() {
		return nil // all of 127.0.0.0/8 is there already
	}
	for _, step := range []struct {
		request uint
		address [4]byte
	}{{unix.SIOCSIFADDR, address.As4()}, {unix.SIOCSIFNETMASK, [4]byte{255, 255, 255, 255}}} {
		alias, err := unix.NewIfreq("lo:1")
		if err != nil {
			return err
		}
		if err := alias.SetInet4Addr(step.address[:]); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, step.request, alias); err != nil {
			return fmt.Errorf("add %s to lo: %w", address, err)
		}
	}
	return nil
}

// Dial connects to a TCP port as the process's own network has it: inside its
// namespace, or on the host where it has none.
func (p *Process) Dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	if !p.spec.Address.IsValid() {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "tcp", to.String())
	}
	// A socket belongs to the namespace it was made in, whoever connects it.
	var fd int
	var err error
	if !p.onThread(func() {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	}) {
		return nil, fmt.Errorf("dial %s: the process has ended", to)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: open socket: %w", to, err)
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	file := os.NewFile(uintptr(fd), "tcp "+to.String())
	defer file.Close() // the connection has its own copy
	if errors.Is(err, unix.EINPROGRESS) {
		err = awaitConnect(ctx, file)
	}
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", to, err)
	}
	return net.FileConn(file)
}

func awaitConnect(ctx context.Context, file *os.File) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := file.SetWriteDeadline(deadline); err != nil {
			return err
		}
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var result error
	err = raw.Write(func(fd uintptr) bool {
		code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			result = err
			return true
		}
		if code != 0 {
			result = unix.Errno(code)
			return true
		}
		_, err = unix.Getpeername(int(fd))
		return err == nil // not connected yet: wait until writable
	})
	return errors.Join(err, result)
}

// Listens says whether something in the process's network listens on the TCP
// port, without connecting to it.
func (p *Process) Listens(port uint16) bool {
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", p.PID(), table))
		if err != nil {
			continue // ended, or no IPv6: not listening
		}
		found := listens(bufio.NewScanner(file), port)
		file.Close()
		if found {
			return true
		}
	}
	return false
}

func listens(table *bufio.Scanner, port uint16) bool {
	const listenState = "0A"
	for table.Scan() {
		// "0: 00000000:1F90 00000000:0000 0A …"
		fields := strings.Fields(table.Text())
		if len(fields) < 4 || fields[3] != listenState {
			continue
		}
		_, local, _ := strings.Cut(fields[1], ":")
		raw, err := hex.DecodeString(local)
		if err == nil && len(raw) == 2 && uint16(raw[0])<<8|uint16(raw[1]) == port {
			return true
		}
	}
	return false
}
