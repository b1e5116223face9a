package componenttest

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"
)

func lockThread() { runtime.LockOSThread() }

// Eventually waits until a condition holds, which returns what it is missing.
func Eventually(t testing.TB, within time.Duration, what string, condition func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	for {
		try, stop := context.WithTimeout(ctx, 10*time.Second)
		err := condition(try)
		stop()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %s: %v", what, within, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Ports are ports that are free for TCP and UDP at all of some addresses.
func Ports(t testing.TB, n int, addresses ...string) []int {
	t.Helper()
	if len(addresses) == 0 {
		addresses = []string{"127.0.0.1"}
	}
	var held []interface{ Close() error }
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	var all []int
	for tries := 0; len(all) < n; tries++ {
		if tries > 100*n {
			t.Fatal("there are no free ports")
		}
		first, err := net.Listen("tcp", net.JoinHostPort(addresses[0], "0"))
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, first)
		port := first.Addr().(*net.TCPAddr).Port
		free := true
		for i, a := range addresses {
			at := &net.TCPAddr{IP: net.ParseIP(a), Port: port}
			if i > 0 {
				l, err := net.ListenTCP("tcp", at)
				if err != nil {
					free = false
					break
				}
				held = append(held, l)
			}
			u, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: port})
			if err != nil {
				free = false
				break
			}
			held = append(held, u)
		}
		if free {
			all = append(all, port)
		}
	}
	return all
}
