package edge

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// handed are the ports given out by this process, so that none is given out twice.
var handed sync.Map

// FreePort is one that nobody listens on. It lies below the range from which the
// kernel takes the ports of outgoing connections: who is down for a moment finds it
// free again.
func FreePort(t testing.TB) int {
	t.Helper()
	listener := listenFree(t)
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port
}

// listenFree listens on such a port of loopback.
func listenFree(t testing.TB) net.Listener {
	t.Helper()
	var last error
	for range 200 {
		// test/consul takes its ports from 20000 on.
		port := 11000 + rand.IntN(8900)
		if _, taken := handed.LoadOrStore(port, true); taken {
			continue
		}
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return listener
		}
		last = err
	}
	t.Fatalf("no free port in 200 tries; the last: %v", last)
	return nil
}
