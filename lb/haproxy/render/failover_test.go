package render

import (
	"bufio"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// serveAt makes this test binary a web server on the address, instead of running
// tests: a process that can be killed.
const serveAt = "RENDER_TEST_SERVE"

func TestMain(m *testing.M) {
	log.SetOutput(io.Discard) // consul-template's
	if spec, ok := os.LookupEnv(serveAt); ok {
		name, address, _ := strings.Cut(spec, "=")
		l, err := net.Listen("tcp", address)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_ = http.Serve(l, answer(name))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// mortal starts a web server in a process of its own and returns what kills it.
func mortal(t testing.TB, name, address string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serveAt+"="+name+"="+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	kill = func() {
		once.Do(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	t.Cleanup(kill)
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("%s does not start: %q, %v", name, line, err)
	}
	return kill
}

// load sends requests until it is stopped, and counts who answers.
type load struct {
	answered sync.Map // instance to *atomic.Int64
	failed   atomic.Int64
	failure  atomic.Value
	slowest  atomic.Int64
	stop     chan struct{}
	done     sync.WaitGroup
}

func startLoad(e *edge, address string, clients int) *load {
	l := &load{stop: make(chan struct{})}
	for range clients {
		l.done.Go(func() {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}, Timeout: 30 * time.Second}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-l.stop:
					return
				default:
				}
				l.one(client, address)
			}
		})
	}
	e.t.Cleanup(l.end)
	return l
}

func (l *load) one(client *http.Client, address string) {
	began := time.Now()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		panic(err)
	}
	req.Host = "web.example.com"
	resp, err := client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("answered %s", resp.Status)
		}
	}
	if err != nil {
		l.failed.Add(1)
		l.failure.Store(err.Error())
		return
	}
	for took := int64(time.Since(began)); ; {
		slowest := l.slowest.Load()
		if took <= slowest || l.slowest.CompareAndSwap(slowest, took) {
			break
		}
	}
	l.count(resp.Header.Get("Instance")).Add(1)
}

func (l *load) count(instance string) *atomic.Int64 {
	n, _ := l.answered.LoadOrStore(instance, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// more waits until the instance has answered n more requests.
func (l *load) more(t testing.TB, instance string, n int64) {
	t.Helper()
	from := l.count(instance).Load()
	haproxytest.Until(t, instance+" answers", func() error {
		if got := l.count(instance).Load() - from; got < n {
			return fmt.Errorf("%d requests of %d; %d failed", got, n, l.failed.Load())
		}
		return nil
	})
}

func (l *load) end() {
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.done.Wait()
}

// The catalog needs seconds to notice that an instance was killed. HAProxy must not.
func TestKilledInstanceFailsOverWithoutAFailedRequest(t *testing.T) {
	for _, clients := range []int{1, 50} {
		t.Run(fmt.Sprintf("%d clients", clients), func(t *testing.T) {
			local := loopback(haproxytest.FreePort(t))
			kill := mortal(t, "local", local)
			remote := backup(instance(t, "remote"))
			table := &routing.Table{
				Backends: []*routing.Backend{backend("web", server("local", local), remote)},
				Routes:   []routing.Route{byHost("web.example.com", "/", "web")},
			}
			address := loopback(haproxytest.FreePort(t))
			e := startEdge(t, table, Settings{HTTP: []string{address}})
			l := startLoad(e, address, clients)
			l.more(t, "local", 200)
			if n := l.count("remote").Load(); n > 0 {
				t.Errorf("a backup server answered %d requests while the local one served", n)
			}
			for range 3 {
				l.slowest.Store(0)
				kill()
				l.more(t, "remote", 200)
				t.Logf("slowest request while failing over: %s", time.Duration(l.slowest.Load()))
				kill = mortal(t, "local", local)
				l.more(t, "local", 200)
			}
			l.end()
			if n := l.failed.Load(); n > 0 {
				t.Errorf("%d requests failed, the last with: %v\n%s", n, l.failure.Load(), e.Log())
			}
		})
	}
}

// dying is an instance that takes one request and is gone before it answers.
func dying(t testing.TB, name string, taken *atomic.Int64) routing.Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		defer l.Close()
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			n, _ := conn.Read(make([]byte, 4096))
			if n > 0 { // no check
				l.Close()
				taken.Add(1)
			}
			conn.Close()
		}
	}()
	return server(name, l.Addr().String())
}

func TestOnlySafeRequestsAreSentASecondTime(t *testing.T) {
	address := loopback(haproxytest.FreePort(t))
	closed := server("closed", loopback(haproxytest.FreePort(t)))
	var posts, gets atomic.Int64
	good := backup(instance(t, "good"))
	table := &routing.Table{}
	for name, s := range map[string]routing.Server{"closed": closed, "post": dying(t, "post", &posts), "get": dying(t, "get", &gets)} {
		table.Backends = append(table.Backends, backend(name, s, good))
		table.Routes = append(table.Routes, byHost(name+".example.com", "/", name))
	}
	e := startEdge(t, table, Settings{HTTP: []string{address}})
	send := func(method, host string) string {
		t.Helper()
		var body io.Reader
		if method == http.MethodPost {
			body = strings.NewReader("x")
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://"+address+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host + ".example.com"
		got, _ := e.do(req)
		return got.Instance
	}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		if got := send(method, "closed"); got != "good" {
			t.Errorf("%s to a server that is not there: %s", method, got)
		}
	}
	if got := send(http.MethodPost, "post"); !strings.HasPrefix(got, "502") || posts.Load() != 1 {
		t.Errorf("POST to a server that dies: %s; it was sent %d times", got, posts.Load())
	}
	if got := send(http.MethodGet, "get"); got != "good" || gets.Load() != 1 {
		t.Errorf("GET to a server that dies: %s; it was sent %d times", got, gets.Load())
	}
}
