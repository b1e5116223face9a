package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Reservation is a TCP port of the host that nobody else can take. Connections
// to it are refused until it is forwarded.
type Reservation struct {
	addr netip.AddrPort

	mu sync.Mutex
	fd int // -1 once closed or listening
}

// Reserve takes a port; the error is EADDRINUSE if it is not free. A fixed port
// is taken also while old connections of it linger; one that can be exchanged
// for another should not be fixed, as only then strangers are kept off it too.
func Reserve(addr netip.AddrPort, fixed bool) (*Reservation, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserve %s: %w", addr, err)
	}
	if fixed {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()})
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("reserve %s: %w", addr, err)
	}
	return &Reservation{addr: addr, fd: fd}, nil
}

// Addr is what was reserved.
func (r *Reservation) Addr() netip.AddrPort { return r.addr }

// Close gives the port back, if it is not forwarded.
func (r *Reservation) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}

func (r *Reservation) listen() (net.Listener, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, net.ErrClosed)
	}
	if err := unix.Listen(r.fd, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, err)
	}
	file := os.NewFile(uintptr(r.fd), "tcp "+r.addr.String())
	r.fd = -1
	defer file.Close()
	return net.FileListener(file)
}

// Forward carries the connections of a reserved port to the process's network
// until the process ends, and then gives the port back. Until something listens
// there, connections are refused, as they are by a container's port mapping.
func (p *Process) Forward(from *Reservation, to netip.AddrPort) {
	go func() {
		defer from.Close()
		if !p.awaitListening(to.Port()) {
			return
		}
		listener, err := from.listen()
		if err != nil {
			return // closed meanwhile
		}
		go func() {
			<-p.ended
			listener.Close()
		}()
		p.accept(listener, to)
	}()
}

func (p *Process) awaitListening(port uint16) bool {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for !p.Listens(port) {
		select {
		case <-poll.C:
		case <-p.ended:
			return false
		}
	}
	return true
}

func (p *Process) accept(listener net.Listener, to netip.AddrPort) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-p.ended:
				return
			case <-time.After(5 * time.Millisecond): // out of descriptors: let some go
				continue
			}
		}
		go p.carry(conn.(*net.TCPConn), to)
	}
}

func (p *Process) carry(outer *net.TCPConn, to netip.AddrPort) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	conn, err := p.Dial(ctx, to)
	cancel()
	if err != nil {
		_ = outer.SetLinger(0) // what a refused connection looks like this late
		outer.Close()
		return
	}
	inner := conn.(*net.TCPConn)
	var both sync.WaitGroup
	both.Go(func() { carryOneWay(inner, outer) })
	both.Go(func() { carryOneWay(outer, inner) })
	gone := make(chan struct{})
	go func() {
		select {
		case <-p.ended:
			// The namespace took its end down without a word.
			inner.Close()
			outer.Close()
		case <-gone:
		}
	}()
	both.Wait()
	close(gone)
	inner.Close()
	outer.Close()
}

func carryOneWay(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		// A reset on one side is a reset on the other.
		_ = to.SetLinger(0)
		to.Close()
		return
	}
	_ = to.CloseWrite()
}
