package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
)

// lasting are servers whose connections last.
type lasting struct {
	// http upgrades what asks for it, and holds answers back; tcp says back what it is
	// told.
	http, tcp netip.AddrPort
}

// held is how long a long poll takes.
const held = 5 * time.Second

func startLasting(t testing.TB) lasting {
	listen := func(serve func(net.Conn)) netip.AddrPort {
		listener, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					defer conn.Close()
					serve(conn)
				}()
			}
		}()
		return listener.Addr().(*net.TCPAddr).AddrPort()
	}
	return lasting{http: listen(serveHTTP), tcp: listen(serveEcho)}
}

func serveEcho(conn net.Conn) { _, _ = io.Copy(conn, conn) }

// serveHTTP upgrades a connection for /ws (the one key that talk sends), answers /poll after a while, and all else at
// once.
func serveHTTP(conn net.Conn) {
	for reader := bufio.NewReader(conn); ; {
		request, err := reader.ReadString('\n')
		if err != nil {
			return
		}
		for line := request; strings.TrimSpace(line) != ""; {
			if line, err = reader.ReadString('\n'); err != nil {
				return
			}
		}
		switch path := strings.Fields(request)[1]; path {
		case "/ws":
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
			_, _ = io.Copy(conn, reader)
			return
		case "/poll":
			time.Sleep(held)
			fallthrough
		default:
			fmt.Fprint(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	}
}

// sessions are clients whose connections last.
type sessions struct {
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu     sync.Mutex
	opened map[string]int
	broken []broken
}

// broken is a connection that has ended before its client ended it.
type broken struct {
	at   time.Time
	kind string
	err  error
}

// startSessions opens and closes some of each kind, until the end.
func startSessions(ctx context.Context, http, tcp string, o options) *sessions {
	ctx, cancel := context.WithCancel(ctx)
	s := &sessions{cancel: cancel, opened: map[string]int{}}
	// A worker that was replaced lives as long as its longest session.
	longest := min(o.during/4, 40*time.Second)
	upgrade := "GET /ws HTTP/1.1\r\nHost: ws." + edge.Domain + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for i := range 8 {
		// Each session has its own: they are goroutines.
		lives := func(kind int) func() time.Duration {
			random := rand.New(rand.NewPCG(o.seed, uint64(100+10*i+kind)))
			return func() time.Duration { return time.Duration(random.Int64N(int64(longest))) }
		}
		upgraded, plain := lives(0), lives(1)
		s.keep(ctx, "WebSocket", func() error { return talk(ctx, http, upgrade, upgraded()) })
		s.keep(ctx, "TCP connection", func() error { return talk(ctx, tcp, "", plain()) })
		s.keep(ctx, "long poll", func() error { return poll(ctx, http) })
	}
	return s
}

func (s *sessions) keep(ctx context.Context, kind string, session func() error) {
	s.all.Go(func() {
		for ctx.Err() == nil {
			s.mu.Lock()
			s.opened[kind]++
			s.mu.Unlock()
			if err := session(); err != nil && ctx.Err() == nil {
				s.mu.Lock()
				s.broken = append(s.broken, broken{time.Now(), kind, err})
				s.mu.Unlock()
				time.Sleep(100 * time.Millisecond)
			}
		}
	})
}

func (s *sessions) end() {
	s.cancel()
	s.all.Wait()
}

func (s *sessions) total() int {
	n := 0
	for _, opened := range s.opened {
		n += opened
	}
	return n
}

// dial opens a connection that ends with the context.
func dial(ctx context.Context, address string) (net.Conn, func(), error) {
	conn, err := net.DialTimeout("tcp", address, edge.Patience)
	if err != nil {
		return nil, nil, fmt.Errorf("connect: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// talk says something every now and then, and expects it back.
func talk(ctx context.Context, address, upgrade string, life time.Duration) error {
	conn, done, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer done()
	reader := bufio.NewReader(conn)
	_ = conn.SetDeadline(time.Now().Add(edge.Patience))
	if upgrade != "" {
		if _, err := io.WriteString(conn, upgrade); err != nil {
			return fmt.Errorf("ask for an upgrade: %w", err)
		}
		status, err := reader.ReadString('\n')
		if err != nil {
			return fmt.Errorf("read the answer to an upgrade: %w", err)
		}
		if !strings.HasPrefix(status, "HTTP/1.1 101 ") {
			return fmt.Errorf("the answer to an upgrade is %q", status)
		}
		for line := status; strings.TrimSpace(line) != ""; {
			if line, err = reader.ReadString('\n'); err != nil {
				return fmt.Errorf("read the answer to an upgrade: %w", err)
			}
		}
	}
	for begin, n := time.Now(), 0; time.Since(begin) < life; n++ {
		_ = conn.SetDeadline(time.Now().Add(edge.Patience))
		said := fmt.Sprintf("%d\n", n)
		if _, err := io.WriteString(conn, said); err != nil {
			return fmt.Errorf("after %s: write: %w", time.Since(begin).Round(time.Millisecond), err)
		}
		heard, err := reader.ReadString('\n')
		if err != nil {
			return fmt.Errorf("after %s: read: %w", time.Since(begin).Round(time.Millisecond), err)
		}
		if heard != said {
			return fmt.Errorf("after %s: said %q, heard %q", time.Since(begin).Round(time.Millisecond), said, heard)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(250 * time.Millisecond):
		}
	}
	return nil
}

// poll makes a request whose answer takes its time.
func poll(ctx context.Context, address string) error {
	conn, done, err := dial(ctx, address)
	if err != nil {
		return err
	}
	defer done()
	_ = conn.SetDeadline(time.Now().Add(edge.Patience))
	if _, err := fmt.Fprintf(conn, "GET /poll HTTP/1.1\r\nHost: ws.%s\r\nConnection: close\r\n\r\n", edge.Domain); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if !strings.HasPrefix(string(answer), "HTTP/1.1 200 ") {
		status, _, _ := strings.Cut(string(answer), "\r\n")
		return errors.New("the answer is " + fmt.Sprintf("%q", status))
	}
	return nil
}
