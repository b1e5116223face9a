package world

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Servers answer for all instances: each request with the address that it came to.
type Servers struct {
	Port int
	// Requests answered so far.
	Requests atomic.Int64

	listener net.Listener
	mu       sync.Mutex
	open     map[net.Conn]bool // nil once it has ended
}

// StartServers listens on all addresses of the loopback interface, until the scope
// ends.
func StartServers(t testing.TB) *Servers {
	t.Helper()
	loopbackOnly := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if controlErr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "lo") }); controlErr != nil {
			return controlErr
		}
		return err
	}}
	listener, err := loopbackOnly.Listen(context.Background(), "tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatalf("listen on the loopback interface: %v", err)
	}
	return serve(t, listener)
}

// StartServer is one instance's own server, which can end: see [Servers.End].
func StartServer(t testing.TB, address string) *Servers {
	t.Helper()
	var config net.ListenConfig
	listener, err := config.Listen(context.Background(), "tcp4", address)
	if err != nil {
		t.Fatalf("listen for an instance: %v", err)
	}
	return serve(t, listener)
}

func serve(t testing.TB, listener net.Listener) *Servers {
	s := &Servers{Port: listener.Addr().(*net.TCPAddr).Port, listener: listener, open: map[net.Conn]bool{}}
	t.Cleanup(s.End)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			if s.open == nil {
				conn.Close()
			} else {
				s.open[conn] = true
				go s.answer(conn)
			}
			s.mu.Unlock()
		}
	}()
	return s
}

// answer reads requests without bodies, which is all that is sent here.
func (s *Servers) answer(conn net.Conn) {
	defer func() {
		conn.Close()
		s.mu.Lock()
		delete(s.open, conn)
		s.mu.Unlock()
	}()
	body := conn.LocalAddr().String()
	response := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for reader := bufio.NewReaderSize(conn, 2048); ; {
		for {
			line, err := reader.ReadSlice('\n')
			if err != nil {
				return
			}
			if len(line) <= 2 {
				break
			}
		}
		s.Requests.Add(1)
		if _, err := conn.Write(response); err != nil {
			return
		}
	}
}

// End closes the listener and all connections, as the end of a process does.
func (s *Servers) End() {
	_ = s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		_ = conn.Close()
	}
	s.open = nil
}
