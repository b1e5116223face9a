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
//
// A socket that does not listen keeps others off only without SO_REUSEADDR; one
// that is to listen while old connections of it linger needs it, and they need
// to have had it. So the option goes on with listening and off again.
type Reservation struct {
	addr netip.AddrPort

	mu sync.Mutex
	fd int // -1 once closed
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

// Close gives the port back.
func (r *Reservation) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		unix.Close(r.fd)
		r.fd = -1
	}
}

// listen begins to take connections; the port stays reserved when it ends.
func (r *Reservation) listen() (net.Listener, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd < 0 {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, net.ErrClosed)
	}
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, err)
	}
	if err := unix.Listen(r.fd, unix.SOMAXCONN); err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, err)
	}
	copied, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", r.addr, err)
	}
	file := os.NewFile(uintptr(copied), "tcp "+r.addr.String())
	defer file.Close()
	return net.FileListener(file)
}

// refuse stops taking connections; the kernel keeps the socket bound.
func (r *Reservation) refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fd >= 0 {
		_ = unix.Shutdown(r.fd, unix.SHUT_RD)
		_ = unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 0)
	}
}

// Forward carries the connections of a reserved port to the process's network
// until the process ends, and then gives the port back. While nothing listens
// there, connections are refused, as they are by a container's port mapping. It must
// not be called any more once somebody asks for the [Process.Exit].
func (p *Process) Forward(from *Reservation, to netip.AddrPort) {
	p.forwards.Go(func() {
		defer from.Close()
		for p.await(to.Port(), true, nil) {
			listener, err := from.listen()
			if err != nil {
				return // closed meanwhile
			}
			lapsed := make(chan struct{}, 1)
			accepting := make(chan struct{})
			go func() {
				defer close(accepting)
				p.accept(listener, to, lapsed)
			}()
			p.await(to.Port(), false, lapsed)
			from.refuse()
			listener.Close()
			<-accepting
		}
	})
}

// await waits until the process listens on the port, or does not, or now says
// that it is time to look no longer. It is false once the process has ended.
func (p *Process) await(port uint16, listening bool, now <-chan struct{}) bool {
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for p.Listens(port) != listening {
		select {
		case <-poll.C:
		case <-now:
			return true
		case <-p.ended:
			return false
		}
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// accept carries connections until the listener is closed; it tells lapsed of
// one that was refused inside.
func (p *Process) accept(listener net.Listener, to netip.AddrPort, lapsed chan<- struct{}) {
	for {
		conn, err := listener.Accept()
		switch {
		case err == nil:
			go func() {
				if !p.carry(conn.(*net.TCPConn), to) {
					select {
					case lapsed <- struct{}{}:
					default:
					}
				}
			}()
		case errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EINVAL): // refuse, or Close
			return
		default: // out of descriptors: let some go
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// carry says whether the process took the connection.
func (p *Process) carry(outer *net.TCPConn, to netip.AddrPort) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	conn, err := p.Dial(ctx, to)
	cancel()
	if err != nil {
		_ = outer.SetLinger(0) // what a refused connection looks like this late
		outer.Close()
		return false
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
	return true
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
