package render

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// seen is what an instance saw of a request.
type seen struct {
	Instance string
	Method   string
	Path     string
	Header   http.Header
}

// instance is a web server that says who it is and what it saw. It ends with the test.
func instance(t testing.TB, name string) routing.Server {
	t.Helper()
	srv := httptest.NewServer(answer(name))
	t.Cleanup(srv.Close)
	return server(name, srv.Listener.Addr().String())
}

func answer(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Instance", name)
		_ = json.NewEncoder(w).Encode(seen{Instance: name, Method: r.Method, Path: r.RequestURI, Header: r.Header})
	})
}

// edge is a HAProxy that runs what was rendered.
type edge struct {
	*haproxytest.Process
	t        testing.TB
	renderer *Renderer
	settings Settings
	client   *http.Client
}

// startEdge runs the table behind a listener of each kind asked for by a key of
// listeners ("http", "https", "app-id"), whose ports are put in.
func startEdge(t testing.TB, table *routing.Table, s Settings) *edge {
	t.Helper()
	s.Dir = haproxytest.Dir(t)
	s.Domain = "mi-lb.example.com"
	if s.ServicePortAddress == "" {
		s.ServicePortAddress = "127.0.0.1"
	}
	s = s.WithDefaults()
	e := &edge{t: t, renderer: newRenderer(t), settings: s}
	e.write(table)
	e.Process = haproxytest.Start(t, ConfigPath(s.Dir), s.Socket)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	e.client = &http.Client{Transport: transport, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	return e
}

func (e *edge) write(table *routing.Table) {
	e.t.Helper()
	files, err := e.renderer.Render(e.t.Context(), table, e.settings, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	if err := Write(e.settings.Dir, files); err != nil {
		e.t.Fatal(err)
	}
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }

// get asks an address of the edge, with the host and headers given.
func (e *edge) get(address, host, path string, header ...string) (seen, *http.Response) {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, "http://"+address, nil)
	if err != nil {
		e.t.Fatal(err)
	}
	req.URL.Opaque = path
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return e.do(req)
}

func (e *edge) do(req *http.Request) (seen, *http.Response) {
	e.t.Helper()
	resp, err := e.client.Do(req)
	if err != nil {
		e.t.Fatalf("%v\n%s", err, e.Log())
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		e.t.Fatal(err)
	}
	var s seen
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &s); err != nil {
			e.t.Fatalf("%v: %q", err, body)
		}
	} else {
		s.Instance = fmt.Sprintf("%d %s", resp.StatusCode, strings.TrimSpace(string(body)))
	}
	return s, resp
}

const nobody = "503 No service here."

func TestRequestsGoWhereHostAndPathSay(t *testing.T) {
	table := &routing.Table{}
	for _, name := range []string{"web", "api", "api-v2", "img", "any", "label", "upper", "everywhere"} {
		table.Backends = append(table.Backends, backend(name, instance(t, name)))
	}
	img := byHost("web.example.com", "/img", "img")
	img.PathPrefix = true
	table.Routes = []routing.Route{
		byHost("web.example.com", "/", "web"), byHost("web.example.com", "/api", "api"), byHost("web.example.com", "/api/v2", "api-v2"), img,
		byHost("web.example.com", "/Case", "upper"),
		byHost("*.example.com", "/", "any"), byHost("*.example.com", "/only", "label"), byHost("exact.example.com", "/sub", "api"),
		byHost("*", "/everywhere", "everywhere"),
	}
	http := loopback(haproxytest.FreePort(t))
	e := startEdge(t, table, Settings{HTTP: []string{http}})
	for _, c := range []struct{ host, path, want string }{
		{"web.example.com", "/", "web"},
		{"WEB.Example.COM", "/", "web"},
		{"web.example.com:8080", "/", "web"},
		{"web.example.com.", "/", "web"},
		{"web.example.com.:80", "/x", "web"},
		{"web.example.com.evil.org", "/", nobody},
		{"evilweb.example.com", "/", "any"},
		{"web.example.co", "/", nobody},
		{"", "/", nobody},
		{"[::1]", "/", nobody},
		{"web.example.com", "/api", "api"},
		{"web.example.com", "/api/", "api"},
		{"web.example.com", "/api?x=/api/v2", "api"},
		{"web.example.com", "/api/x/y", "api"},
		{"web.example.com", "/apix", "web"},
		{"web.example.com", "/API", "web"},
		{"web.example.com", "/api/v2", "api-v2"},
		{"web.example.com", "/api/v2/z", "api-v2"},
		{"web.example.com", "/api/v22", "api"},
		{"web.example.com", "/x/api", "web"},
		{"web.example.com", "/img", "img"},
		{"web.example.com", "/imgs/x", "img"},
		{"web.example.com", "/Case", "upper"},
		{"web.example.com", "/case", "web"},
		{"other.example.com", "/", "any"},
		{"Other.example.com.:81", "/only/x", "label"},
		{"two.labels.example.com", "/", nobody},
		{"example.com", "/", nobody},
		{"exact.example.com", "/sub", "api"},
		{"exact.example.com", "/", "any"},
		{"nobody.org", "/everywhere", "everywhere"},
		{"nobody", "/everywhere/x", "everywhere"},
		{"", "/everywhere", "everywhere"},
		{"nobody.org", "/everywherex", nobody},
		{"web.example.com", "/everywhere", "web"},
		{"other.example.com", "/everywhere", "any"},
		{"localhost", "/x.example.com/only", nobody},
	} {
		got, _ := e.get(http, c.host, c.path)
		if got.Instance != c.want {
			t.Errorf("%s%s leads to %s, want %s", c.host, c.path, got.Instance, c.want)
		} else if c.want != nobody && got.Path != c.path {
			t.Errorf("%s%s arrives as %s", c.host, c.path, got.Path)
		}
	}
	for _, request := range []string{
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: web.example.com\r\nHost: evil.org\r\nConnection: close\r\n\r\n",
		"GET http://web.example.com/ HTTP/1.1\r\nHost: evil.org\r\nConnection: close\r\n\r\n",
	} {
		if answer := raw(t, http, request); !strings.Contains(answer, "HTTP/1.1 503") && !strings.Contains(answer, "HTTP/1.1 400") && !strings.Contains(answer, "HTTP/1.0 503") {
			t.Errorf("%q is answered %q", request, answer)
		}
	}
	answer := raw(t, http, "OPTIONS * HTTP/1.1\r\nHost: web.example.com\r\nConnection: close\r\n\r\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 200") { // Go answers it itself
		t.Errorf("a request about no path is answered %q", answer)
	}
}

// raw sends the request as it is and reads to the end.
func raw(t testing.TB, address, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestHeadersAboutTheClientAreReplacedUnlessAProxyIsTrusted(t *testing.T) {
	claims := []string{
		"X-Forwarded-For", "6.6.6.6", "X-Forwarded-Proto", "https", "X-Forwarded-Port", "443", "X-Forwarded-Host", "claimed.org",
		"Forwarded", "for=6.6.6.6", "Proxy", "http://evil",
	}
	for name, c := range map[string]struct {
		trusted []netip.Prefix
		want    map[string]string
	}{
		"nobody trusted": {nil, map[string]string{
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "web.example.com", "Forwarded": "", "Proxy": "",
		}},
		"proxy trusted": {[]netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, map[string]string{
			"X-Forwarded-For": "6.6.6.6,127.0.0.1", "X-Forwarded-Proto": "https", "X-Forwarded-Port": "443", "X-Forwarded-Host": "claimed.org",
			"Forwarded": "for=6.6.6.6", "Proxy": "",
		}},
		"another proxy trusted": {[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, map[string]string{
			"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "web.example.com", "Forwarded": "", "Proxy": "",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			table := &routing.Table{
				Backends: []*routing.Backend{backend("web", instance(t, "web"))},
				Routes:   []routing.Route{byHost("web.example.com", "/", "web")},
			}
			port := haproxytest.FreePort(t)
			e := startEdge(t, table, Settings{HTTP: []string{loopback(port)}, TrustedProxies: c.trusted})
			got, _ := e.get(loopback(port), "web.example.com", "/", claims...)
			if c.trusted == nil {
				c.want["X-Forwarded-Port"] = fmt.Sprint(port)
			}
			for key, want := range c.want {
				if value := strings.Join(got.Header.Values(key), ","); value != want {
					t.Errorf("%s is %q, want %q", key, value, want)
				}
			}
			got, _ = e.get(loopback(port), "web.example.com", "/")
			if got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Header.Get("X-Forwarded-Proto") != "http" {
				t.Errorf("without claims: %v", got.Header)
			}
		})
	}
}

func TestAppIDListenerRoutesByHeader(t *testing.T) {
	table := &routing.Table{
		Backends: []*routing.Backend{backend("web", instance(t, "web"))},
		Routes:   []routing.Route{{Kind: routing.ByAppID, Host: "/shop/web", Backend: "web", Service: "web"}},
	}
	address := loopback(haproxytest.FreePort(t))
	e := startEdge(t, table, Settings{AppID: []string{address}})
	for id, want := range map[string]string{"/shop/web": "web", "/Shop/Web": "web", "/shop": nobody, "/shop/web/x": nobody, "": nobody} {
		if got, _ := e.get(address, "x", "/", "X-Marathon-App-Id", id); got.Instance != want {
			t.Errorf("app id %q leads to %s, want %s", id, got.Instance, want)
		}
	}
}

func TestPathIsStrippedBySegments(t *testing.T) {
	stripped := backend("api", instance(t, "api"))
	stripped.StripPath = "/api/v1"
	table := &routing.Table{Backends: []*routing.Backend{stripped}, Routes: []routing.Route{byHost("a.example.com", "/", "api")}}
	address := loopback(haproxytest.FreePort(t))
	e := startEdge(t, table, Settings{HTTP: []string{address}})
	for path, want := range map[string]string{
		"/api/v1": "/", "/api/v1/": "/", "/api/v1/x/y": "/x/y", "/api/v1/x?q=1&r=/api/v1": "/x?q=1&r=/api/v1", "/api/v1?q=1": "/?q=1",
		"/api/v1x": "/api/v1x", "/x/api/v1": "/x/api/v1", "/api/v1//x": "//x", "/api/v1/%20%C3%A9;a=b": "/%20%C3%A9;a=b",
	} {
		if got, _ := e.get(address, "a.example.com", path); got.Path != want {
			t.Errorf("%s arrives as %s, want %s", path, got.Path, want)
		}
	}
}

func TestServicePortsLeadToTheirBackends(t *testing.T) {
	first := haproxytest.FreePort(t)
	table := &routing.Table{Backends: []*routing.Backend{backend("web", instance(t, "web")), tcp(backend("web:tcp", instance(t, "tcp")))}}
	own, mapped := haproxytest.FreePort(t), first
	table.Ports = []routing.Port{
		{Number: own, Protocol: routing.HTTP, Backend: "web", Service: "web", Via: "servicePort"},
		{Number: mapped, Protocol: routing.TCP, Backend: "web:tcp", Service: "web", Via: "servicePort"},
	}
	e := startEdge(t, table, Settings{ServicePortRange: PortRange{first, first}})
	got, _ := e.get(loopback(own), "x", "/")
	if got.Instance != "web" || got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Header.Get("X-Forwarded-Port") != fmt.Sprint(own) {
		t.Errorf("the HTTP port leads to %+v", got)
	}
	got, _ = e.get(loopback(mapped), "x", "/")
	if got.Instance != "tcp" || got.Header.Get("X-Forwarded-For") != "" {
		t.Errorf("the TCP port in the range leads to %+v", got)
	}
	// Closed and opened again by its row.
	path := Current(e.settings.Dir) + "/ports.map"
	e.Command(fmt.Sprintf("del map %s %d", path, mapped))
	if answer := tryRaw(loopback(mapped)); answer != "" {
		t.Errorf("a port without a row answers %q", answer)
	}
	_, row := PortRow(table.Ports[1])
	e.Command(fmt.Sprintf("add map %s %s %s", path, row.Key, row.Value))
	if got, _ := e.get(loopback(mapped), "x", "/"); got.Instance != "tcp" {
		t.Errorf("after opening it the port leads to %+v", got)
	}
}

func TestManyServicePortsThatSpeakHTTPAreAccepted(t *testing.T) {
	table := &routing.Table{Backends: []*routing.Backend{backend("web")}}
	for number := range 300 { // HAProxy reads 64 words of a line
		table.Ports = append(table.Ports, routing.Port{Number: 20000 + number, Protocol: routing.HTTP, Backend: "web", Service: "web", Via: "servicePort"})
	}
	settings := Settings{Dir: haproxytest.Dir(t), Plain: true}
	files, err := newRenderer(t).Render(t.Context(), table, settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		haproxytest.WriteFile(t, settings.Dir, name, string(content))
	}
	if err := haproxytest.Validate(t, filepath.Join(settings.Dir, ConfigFile)); err != nil {
		t.Error(err)
	}
}

// tryRaw is what answers a request, "" if the connection is cut.
func tryRaw(address string) string {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestWebSocketUpgradesPass(t *testing.T) {
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = buf.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
			"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
		_ = buf.Flush()
		line, err := buf.ReadString('\n')
		if err == nil {
			_, _ = buf.WriteString("echo " + line)
			_ = buf.Flush()
		}
	}))
	t.Cleanup(upstream.Close)
	table := &routing.Table{
		Backends: []*routing.Backend{backend("ws", server("ws", upstream.Listener.Addr().String()))},
		Routes:   []routing.Route{byHost("ws.example.com", "/", "ws")},
	}
	address := loopback(haproxytest.FreePort(t))
	startEdge(t, table, Settings{HTTP: []string{address}})
	answer := raw(t, address, "GET / HTTP/1.1\r\nHost: ws.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nhello\n")
	if !strings.HasPrefix(answer, "HTTP/1.1 101") || !strings.HasSuffix(answer, "echo hello\n") {
		t.Errorf("answered %q", answer)
	}
}

func TestStickySessionsHoldOnToServersAddedAtRunTime(t *testing.T) {
	sticky := backend("web")
	sticky.Sticky = true
	table := &routing.Table{Backends: []*routing.Backend{sticky}, Routes: []routing.Route{byHost("web.example.com", "/", "web")}}
	address := loopback(haproxytest.FreePort(t))
	e := startEdge(t, table, Settings{HTTP: []string{address}})
	servers := []routing.Server{instance(t, "dc1/a b/one"), instance(t, "two")}
	e.add(sticky, servers)

	cookies := map[string]string{}
	for len(cookies) < 2 {
		got, resp := e.get(address, "web.example.com", "/")
		cookie, _, _ := strings.Cut(resp.Header.Get("Set-Cookie"), ";")
		if _, value, _ := strings.Cut(cookie, "="); value == "" {
			t.Fatalf("%s sets the cookie %q", got.Instance, resp.Header.Get("Set-Cookie"))
		}
		cookies[got.Instance] = cookie
	}
	holds := func(when string) {
		t.Helper()
		for name, cookie := range cookies {
			for range 4 {
				if got, _ := e.get(address, "web.example.com", "/", "Cookie", cookie); got.Instance != name {
					t.Errorf("%s the cookie of %s leads to %s", when, name, got.Instance)
				}
			}
		}
	}
	holds("at first")
	// The same servers from the files: the cookies stay good.
	has := func(servers []routing.Server) {
		changed := *sticky
		changed.Servers = servers
		table.Backends = []*routing.Backend{&changed}
		e.write(table)
	}
	has(servers)
	e.Reload()
	holds("after a reload")
	// A server in Drain keeps its sessions and has no new ones.
	draining := slices.Clone(servers)
	draining[0].State = routing.Drain
	has(draining)
	e.Reload()
	holds("while draining")
	for range 4 {
		if got, _ := e.get(address, "web.example.com", "/"); got.Instance != "two" {
			t.Errorf("a new session goes to %s", got.Instance)
		}
	}
}

// add adds servers at run time, as ServerArgs says.
func (e *edge) add(b *routing.Backend, servers []routing.Server) {
	e.t.Helper()
	args, err := e.renderer.ServerArgs(b, servers, e.settings)
	if err != nil {
		e.t.Fatal(err)
	}
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, " ")
		if out := e.Command("add server " + arg); !strings.Contains(out, "New server registered") {
			e.t.Fatalf("add server %s: %s", arg, out)
		}
		commands := "enable server " + name
		if !b.Check.Disabled {
			commands = "enable health " + name + "; " + commands
		}
		if out := strings.TrimSpace(e.Command(commands)); out != "" {
			e.t.Fatalf("%s: %s", commands, out)
		}
	}
	if b.Sticky {
		e.Command("enable dynamic-cookie backend " + b.ID)
	}
}

func TestAddedServersAreLikeConfiguredOnes(t *testing.T) {
	web := backend("web")
	table := &routing.Table{Backends: []*routing.Backend{web}}
	e := startEdge(t, table, Settings{HTTP: []string{loopback(haproxytest.FreePort(t))}})
	up, spare, slow := instance(t, "up"), backup(instance(t, "spare")), instance(t, "slow/er: x")
	slow.Weight, slow.MaxConn = 7, 3
	servers := []routing.Server{slow, spare, up}
	e.add(web, servers)
	state := func() []string {
		var rows []string
		for line := range strings.Lines(e.Command("show servers state web")) {
			f := strings.Fields(line)
			if len(f) < 20 || f[0] == "#" {
				continue
			}
			// Name, address, operational and administrative state, weights, check, port.
			rows = append(rows, strings.Join([]string{f[3], f[4], f[5], f[6], f[7], f[8], f[18]}, " "))
		}
		return rows
	}
	added := state()
	changed := *web
	changed.Servers = servers
	table.Backends = slices.Clone(table.Backends)
	table.Backends[slices.Index(table.Backends, web)] = &changed
	e.write(table)
	e.Reload()
	if configured := state(); strings.Join(added, "\n") != strings.Join(configured, "\n") {
		t.Errorf("added:\n%s\nconfigured:\n%s", strings.Join(added, "\n"), strings.Join(configured, "\n"))
	}
}

func TestHTTPSPassesOnByServerNameAndDecryptsTheRest(t *testing.T) {
	passthrough := httptest.NewUnstartedServer(answer("passed"))
	passthrough.TLS = &tls.Config{Certificates: []tls.Certificate{keyPair(t, "passed.example.com")}}
	passthrough.StartTLS()
	t.Cleanup(passthrough.Close)
	without := &routing.Table{
		Backends: []*routing.Backend{tcp(backend("passed", server("p", passthrough.Listener.Addr().String()))), backend("web", instance(t, "web"))},
		Routes:   []routing.Route{byHost("web.example.com", "/", "web")},
	}
	with := &routing.Table{Backends: without.Backends, Routes: append([]routing.Route{
		{Kind: routing.BySNI, Host: "passed.example.com", Backend: "passed", Service: "passed"},
		{Kind: routing.BySNI, Host: "*.passed.example.com", Backend: "passed", Service: "passed"},
	}, without.Routes...)}
	certs := haproxytest.Dir(t)
	certificate(t, certs, "web.example.com")
	port := haproxytest.FreePort(t)
	address := loopback(port)
	e := startEdge(t, without, Settings{HTTPS: []string{address}, Certificates: certs})
	web := func(when string) {
		t.Helper()
		for _, h2 := range []bool{false, true} {
			got, state, err := e.getTLS(address, "web.example.com", h2)
			if err != nil || got.Instance != "web" || state.PeerCertificates[0].DNSNames[0] != "web.example.com" || (state.NegotiatedProtocol == "h2") != h2 {
				t.Errorf("%s: HTTP/2 %v: %+v, %v", when, h2, got, err)
				continue
			}
			if got.Header.Get("X-Forwarded-Proto") != "https" || got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Header.Get("X-Forwarded-Port") != fmt.Sprint(port) {
				t.Errorf("%s: %v", when, got.Header)
			}
		}
	}
	web("without passthrough")
	e.write(with)
	e.Reload()
	web("with passthrough")
	for _, name := range []string{"passed.example.com", "Passed.Example.com", "x.passed.example.com"} {
		got, state, err := e.getTLS(address, name, false)
		if err != nil || got.Instance != "passed" || state.PeerCertificates[0].DNSNames[0] != "passed.example.com" || got.Header.Get("X-Forwarded-For") != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, state, err := e.getTLS(address, "passed.example.com.evil.org", false); err != nil || state.PeerCertificates[0].DNSNames[0] != "web.example.com" {
		t.Errorf("an unknown name is not decrypted: %v", err)
	}
	// The internal socket is handed over too.
	e.Reload()
	web("after another reload")

	alone := startEdge(t, with, Settings{HTTPS: []string{loopback(haproxytest.FreePort(t))}})
	if got, _, err := alone.getTLS(alone.settings.HTTPS[0], "passed.example.com", false); err != nil || got.Instance != "passed" {
		t.Errorf("without certificates: %+v, %v", got, err)
	}
	if _, _, err := alone.getTLS(alone.settings.HTTPS[0], "web.example.com", false); err == nil {
		t.Error("without certificates a name that is not passed on is answered")
	}
	if answer := tryRaw(alone.settings.HTTPS[0]); answer != "" {
		t.Errorf("plain text on the HTTPS port is answered %q", answer)
	}
}

func (e *edge) getTLS(address, name string, h2 bool) (seen, *tls.ConnectionState, error) {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!h2)
	protocols.SetHTTP2(h2)
	transport := &http.Transport{
		Protocols:       protocols,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 20 * time.Second}).Get("https://" + name + "/")
	if err != nil {
		return seen{}, nil, err
	}
	defer resp.Body.Close()
	var s seen
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode == http.StatusOK {
		err = json.Unmarshal(body, &s)
	}
	return s, resp.TLS, err
}
