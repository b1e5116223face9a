package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// startTelling is a server that answers with its name and what it was told of the client.
func startTelling(t *testing.T, name string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header
		fmt.Fprintf(w, "%s: %s %s for %s", name, h.Get("X-Forwarded-Proto"), h.Get("X-Forwarded-Port"), strings.Join(h["X-Forwarded-For"], ", ")) // the client's loss
	}))
	t.Cleanup(server.Close)
	return server
}

// kept is a connection of a client that asks one thing after the other.
type kept struct {
	conn   net.Conn
	reader *bufio.Reader
}

func keep(t *testing.T, address string, secure *tls.Config) *kept {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, edge.Patience)
	if err == nil && secure != nil {
		conn = tls.Client(conn, secure)
	}
	if err == nil {
		t.Cleanup(func() { conn.Close() })
		err = conn.SetDeadline(time.Now().Add(2 * edge.Patience))
	}
	if err != nil {
		t.Fatal(err)
	}
	return &kept{conn, bufio.NewReader(conn)}
}

// ask gives the status and the body, or the error; and whether that was the last answer.
func (k *kept) ask(header string) (answer string, last bool) {
	if _, err := fmt.Fprintf(k.conn, "GET / HTTP/1.1\r\n%s\r\n\r\n", header); err != nil {
		return err.Error(), true
	}
	response, err := http.ReadResponse(k.reader, nil)
	if err != nil {
		return err.Error(), true
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err.Error(), true
	}
	return fmt.Sprintf("%d %s", response.StatusCode, body), response.Close
}

func TestAConnectionKeptAcrossAReloadGetsWhatIsRightByThen(t *testing.T) {
	t.Parallel()
	for name, trusted := range map[string][]string{"no proxy is trusted": nil, "a trusted proxy": {"127.0.0.0/8"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			first, second := startTelling(t, "first"), startTelling(t, "second")
			task := func(s *httptest.Server) marathon.FakeTask {
				port := int(netip.MustParseAddrPort(s.Listener.Addr().String()).Port())
				return marathon.FakeTask{ID: fmt.Sprintf("task.%d", port), Ports: []int{port, port}}
			}
			inside, outside := edge.FreePort(t), edge.FreePort(t)
			app := document(t, "/web", outside, map[string]any{
				"labels": map[string]any{"HAPROXY_0_MODE": "http", "HAPROXY_1_MODE": "http"},
				"portDefinitions": []any{
					map[string]any{"port": inside, "protocol": "tcp"}, map[string]any{"port": outside, "protocol": "tcp"},
				},
			})
			cluster := startMarathon(t, marathon.Options{Fake: true})
			if err := cluster.PutApp(app, task(first)); err != nil {
				t.Fatal(err)
			}
			pool := x509.NewCertPool()
			certificates := filepath.Join(t.TempDir(), "certificates")
			certificate(t, certificates, pool, "web.test")
			local := func() string { return fmt.Sprintf("127.0.0.1:%d", edge.FreePort(t)) }
			https, appID := local(), local()
			e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}, Config: map[string]any{
				"listen.https": []string{https}, "listen.certificates": certificates, "listen.app_id": []string{appID},
				"listen.service_port_range": fmt.Sprintf("%d-%d", inside, inside), "haproxy.trusted_proxies": trusted,
			}})

			clients := "127.0.0.1"
			if trusted != nil {
				clients = "192.0.2.1, 127.0.0.1"
			}
			type way struct {
				name, address, header, proto string
				secure                       *tls.Config
			}
			ways := []way{
				{"by name", e.HTTPAddress, "Host: web.test", "http", nil},
				{"by HTTPS", https, "Host: web.test", "https", &tls.Config{RootCAs: pool, ServerName: "web.test"}},
				{"by app id", appID, "Host: any.test\r\nX-Marathon-App-Id: /web", "http", nil},
				{"by a port of the range", fmt.Sprintf("127.0.0.1:%d", inside), "Host: any.test", "http", nil},
				{"by a port of its own", fmt.Sprintf("127.0.0.1:%d", outside), "Host: any.test", "http", nil},
			}
			want := func(server string, w way) string {
				_, port, _ := net.SplitHostPort(w.address)
				return fmt.Sprintf("200 %s: %s %s for %s", server, w.proto, port, clients)
			}
			const before = "X-Forwarded-For: 192.0.2.1\r\n"
			untilServedBy := func(server string, w way) {
				edge.Wait(t, w.name+" there is "+server, func() error {
					if answer, _ := keep(t, w.address, w.secure).ask(before + w.header); answer != want(server, w) {
						return fmt.Errorf("%q is not %q", answer, want(server, w))
					}
					return nil
				})
			}
			var connections []*kept
			for _, w := range ways {
				untilServedBy("first", w)
				k := keep(t, w.address, w.secure)
				if answer, last := k.ask(before + w.header); answer != want("first", w) || last {
					t.Errorf("%s: %q, the last: %v", w.name, answer, last)
				}
				connections = append(connections, k)
			}
			e.Ask("/_mlb_signal/usr1")
			if err := cluster.SetTasks("/web", task(second)); err != nil {
				t.Fatal(err)
			}
			for _, w := range ways {
				untilServedBy("second", w)
			}
			first.CloseClientConnections()
			first.Close()
			for i, w := range ways {
				if answer, last := connections[i].ask(before + w.header); answer != want("second", w) || !last {
					t.Errorf("%s, kept across the reload: %q, the last: %v", w.name, answer, last)
				}
			}
		})
	}
}

func TestAConnectionKeptWhenTheEdgeEndsIsStillAnswered(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "services.yaml")
	web := startEcho(t, "web", (*httptest.Server).Start)
	writeYAML(t, file, map[string]any{"services": []any{entry{name: "web", instances: one(web.address())}.document()}})
	e := startEdge(t, edge.Options{Config: map[string]any{"file": file, "datacenter": "dc1", "haproxy.drain": "1m"}})
	e.WaitHTTP("web.test")
	// A reload of before does not matter.
	e.Ask("/_mlb_signal/usr1")
	k := keep(t, e.HTTPAddress, nil)
	if answer, last := k.ask("Host: web.test"); answer != "200 web / forwarded" || last {
		t.Fatalf("%q, the last: %v", answer, last)
	}
	e.Signal(syscall.SIGTERM)
	waitNobodyListens(t, e.HTTPAddress)
	if answer, last := k.ask("Host: web.test"); answer != "200 web / forwarded" || !last {
		t.Errorf("%q, the last: %v", answer, last)
	}
	if err := e.WaitEnd(); err != nil {
		t.Errorf("mi-lb ended with %v", err)
	}
}
