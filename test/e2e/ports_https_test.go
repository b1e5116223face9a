package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
)

// certificate writes one for the names, with its key, as HAProxy reads them: one PEM
// file. It is its own authority, and in the pool afterwards.
func certificate(t *testing.T, path string, pool *x509.CertPool, names ...string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for kind, content := range map[string][]byte{"CERTIFICATE": der, "PRIVATE KEY": private} {
		if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: content}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, text.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
}

// secured asks for hosts by HTTPS at the address, as HTTP/2 if that is wanted.
func secured(t *testing.T, address string, pool *x509.CertPool, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	var dialer net.Dialer
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protocols,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, network, address)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: edge.Patience}
}

func TestHTTPSWithACertificateOrAFolderOfThemBesidePassthrough(t *testing.T) {
	t.Parallel()
	for name, folder := range map[string]bool{"file": false, "folder": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			pool := x509.NewCertPool()
			certificates := filepath.Join(dir, "certificates")
			if folder {
				if err := os.Mkdir(certificates, 0o700); err != nil {
					t.Fatal(err)
				}
				certificate(t, filepath.Join(certificates, "web.pem"), pool, "web.test")
				certificate(t, filepath.Join(certificates, "shop.pem"), pool, "shop.example.com")
			} else {
				certificate(t, certificates, pool, "web.test", "shop.example.com")
			}
			file := filepath.Join(dir, "services.yaml")
			web := startEcho(t, "web", (*httptest.Server).Start)
			secure := startEcho(t, "secure", (*httptest.Server).StartTLS)
			services := []any{entry{name: "web", tags: []string{"mi-lb.host=shop.example.com"}, instances: one(web.address())}.document()}
			writeYAML(t, file, map[string]any{"services": services})
			address := fmt.Sprintf("127.0.0.1:%d", edge.FreePort(t))
			e := startEdge(t, edge.Options{Config: map[string]any{
				"file": file, "datacenter": "dc1", "listen.https": []string{address}, "listen.certificates": certificates,
			}})
			check := func(when string) {
				t.Helper()
				for _, http2 := range []bool{false, true} {
					client := secured(t, address, pool, http2)
					for _, host := range []string{"web.test", "shop.example.com"} {
						response, err := client.Get("https://" + host + "/x")
						if err != nil {
							t.Errorf("%s: %s, HTTP/2 %t: %v", when, host, http2, err)
							continue
						}
						body, err := io.ReadAll(response.Body)
						response.Body.Close()
						if err != nil || string(body) != "web /x forwarded" || response.ProtoMajor == 2 != http2 {
							t.Errorf("%s: %s, HTTP/2 %t: %s %s %q %v", when, host, http2, response.Proto, response.Status, body, err)
						}
					}
				}
			}
			check("at first")
			// The first that is passed through turns the listener into one that looks
			// before it decrypts.
			load := e.Load("web.test")
			services = append(services, entry{name: "secure", tags: []string{"mi-lb.mode=passthrough"}, instances: one(secure.address())}.document())
			writeYAML(t, file, map[string]any{"services": services})
			own := secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
			expected(t, "TLS passed through", 200, "secure / direct", func() (edge.Answer, error) {
				transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: "secure.test", InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
					_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: own})
					return err
				}}}
				defer transport.CloseIdleConnections()
				return ask("https://"+address+"/", "secure.test", transport)
			})
			check("beside passthrough")
			load.Stop()
			if err := noFindings(e); err != nil {
				t.Error(err)
			}
		})
	}
}

// upgraded opens a connection that has left HTTP, as WebSocket does.
func upgraded(t *testing.T, conn net.Conn, host string) *bufio.ReadWriter {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(edge.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host); err != nil {
		t.Fatal(err)
	}
	both := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	response, err := http.ReadResponse(both.Reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("Sec-WebSocket-Accept") != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Fatalf("%s %v", response.Status, response.Header)
	}
	return both
}

// say sends a line through an upgraded connection and expects it back.
func say(t *testing.T, both *bufio.ReadWriter, text string) {
	t.Helper()
	if _, err := both.WriteString(text + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := both.Flush(); err != nil {
		t.Fatal(err)
	}
	if got, err := both.ReadString('\n'); err != nil || got != "> "+text+"\n" {
		t.Fatalf("said %q, got %q %v", text, got, err)
	}
}

func TestWebSocketsGoThroughAndOutliveReloads(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			w.WriteHeader(http.StatusUpgradeRequired)
			return
		}
		conn, both, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return // the client sees it
		}
		defer conn.Close()
		fmt.Fprintf(both, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		for both.Flush() == nil {
			line, err := both.ReadString('\n')
			if err != nil {
				return
			}
			fmt.Fprintf(both, "> %s", line)
		}
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	pool := x509.NewCertPool()
	certificate(t, filepath.Join(dir, "edge.pem"), pool, "ws.test")
	file := filepath.Join(dir, "services.yaml")
	port := edge.FreePort(t)
	writeYAML(t, file, map[string]any{"services": []any{entry{
		name: "ws", tags: []string{fmt.Sprintf("mi-lb.port=%d", port), "mi-lb.mode=http"}, instances: one(server.Listener.Addr().String()),
	}.document()}})
	https := fmt.Sprintf("127.0.0.1:%d", edge.FreePort(t))
	e := startEdge(t, edge.Options{Config: map[string]any{
		"file": file, "datacenter": "dc1", "listen.https": []string{https}, "listen.certificates": filepath.Join(dir, "edge.pem"),
	}})
	plain, err := net.Dial("tcp", e.HTTPAddress)
	if err != nil {
		t.Fatal(err)
	}
	byPort, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	secure, err := tls.Dial("tcp", https, &tls.Config{RootCAs: pool, ServerName: "ws.test"})
	if err != nil {
		t.Fatal(err)
	}
	all := []*bufio.ReadWriter{upgraded(t, plain, "ws.test"), upgraded(t, byPort, "ws"), upgraded(t, secure, "ws.test")}
	for i, both := range all {
		say(t, both, fmt.Sprintf("hello %d", i))
	}
	e.Ask("/_mlb_signal/usr1")
	waitReloads(t, e, 1)
	for i, both := range all {
		say(t, both, fmt.Sprintf("still there %d", i))
	}
}
