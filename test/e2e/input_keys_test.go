package e2e

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// echo is a server that tells what it was asked. Its path /slow takes a second, and
// /ill is 500.
type echo struct {
	*httptest.Server
	name string
	// now and most are how many requests it has had at once.
	now, most atomic.Int64
}

func startEcho(t *testing.T, name string, start func(*httptest.Server)) *echo {
	t.Helper()
	e := &echo{name: name}
	e.Server = httptest.NewUnstartedServer(e)
	start(e.Server)
	t.Cleanup(e.Close)
	return e
}

func (e *echo) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	now := e.now.Add(1)
	defer e.now.Add(-1)
	for most := e.most.Load(); now > most && !e.most.CompareAndSwap(most, now); most = e.most.Load() {
	}
	switch r.URL.Path {
	case "/slow":
		select {
		case <-time.After(time.Second):
		case <-r.Context().Done():
		}
	case "/ill":
		w.WriteHeader(http.StatusInternalServerError)
	}
	forwarded := "direct"
	if r.Header.Get("X-Forwarded-For") != "" {
		forwarded = "forwarded"
	}
	fmt.Fprintf(w, "%s %s %s", e.name, r.URL.RequestURI(), forwarded) // the client's loss
}

func (e *echo) address() string { return e.Listener.Addr().String() }

// entry is a service of a file or of Consul.
type entry struct {
	name       string
	datacenter string // of a file; empty for the edge's own
	tags       []string
	meta       map[string]string
	// instances by their addresses, with the tags that they alone have.
	instances map[string][]string
}

func one(address string) map[string][]string { return map[string][]string{address: nil} }

func (s entry) document() map[string]any {
	var instances []any
	for address, tags := range s.instances {
		instances = append(instances, map[string]any{"address": address, "id": address, "tags": tags})
	}
	document := map[string]any{"name": s.name, "tags": s.tags, "meta": s.meta, "instances": instances}
	if s.datacenter != "" {
		document["datacenter"] = s.datacenter
	}
	return document
}

func (s entry) register(t *testing.T, agent *consul.Agent) {
	t.Helper()
	for address, tags := range s.instances {
		at := netip.MustParseAddrPort(address)
		if err := agent.RegisterService(testContext(t), &api.AgentServiceRegistration{
			ID: s.name + address, Name: s.name, Address: at.Addr().String(), Port: int(at.Port()), Tags: slices.Concat(s.tags, tags), Meta: s.meta,
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// expected waits for an answer with the status, and the body if there is one.
func expected(t *testing.T, what string, status int, body string, ask func() (edge.Answer, error)) {
	t.Helper()
	edge.Wait(t, what, func() error {
		a, err := ask()
		if err != nil {
			return err
		}
		if a.Status != status || (body != "" && a.Body != body) {
			return fmt.Errorf("%d %q, want %d %q", a.Status, a.Body, status, body)
		}
		return nil
	})
}

func TestServiceKeysMeanWhatTheySay(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	cluster := startMarathon(t, marathon.Options{Fake: true})
	file := filepath.Join(t.TempDir(), "services.yaml")
	httpPort, tcpPort, fabioPort, appPort, namedPort := edge.FreePort(t), edge.FreePort(t), edge.FreePort(t), edge.FreePort(t), edge.FreePort(t)
	https, appID := edge.FreePort(t), edge.FreePort(t)
	plain := func(name string) *echo { return startEcho(t, name, (*httptest.Server).Start) }
	at := func(name string) map[string][]string { return one(plain(name).address()) }
	secure := startEcho(t, "secure", (*httptest.Server).StartTLS)
	narrow, light, heavy := plain("narrow"), plain("light"), plain("heavy")
	healthy, ill := plain("healthy"), plain("ill")

	var services []any
	add := func(s entry) { services = append(services, s.document()) }
	add(entry{name: "hosts", tags: []string{"mi-lb.host=Shop.Example.com,*.wild.example.com"}, instances: at("hosts")})
	add(entry{name: "ports", tags: []string{fmt.Sprintf("mi-lb.port=%d", httpPort), "mi-lb.mode=http"}, instances: at("ports")})
	add(entry{name: "tcp", tags: []string{fmt.Sprintf("mi-lb.port=%d", tcpPort), "mi-lb.mode=tcp"}, instances: at("tcp")})
	add(entry{name: "secure", tags: []string{"mi-lb.mode=passthrough", "mi-lb.host=secure.example.com"}, instances: one(secure.address())})
	add(entry{name: "first", tags: []string{"mi-lb.balance=first"}, instances: map[string][]string{plain("a").address(): nil, plain("b").address(): nil}})
	add(entry{name: "uri", tags: []string{"mi-lb.balance=uri"}, instances: map[string][]string{plain("a").address(): nil, plain("b").address(): nil}})
	add(entry{name: "weights", instances: map[string][]string{light.address(): {"mi-lb.weight=10"}, heavy.address(): {"mi-lb.weight=30"}}})
	for _, locality := range []string{"local-first", "global", "local-only"} {
		add(entry{name: locality, tags: []string{"mi-lb.locality=" + locality}, instances: at("here")})
		add(entry{name: locality, tags: []string{"mi-lb.locality=" + locality}, datacenter: "dc2", instances: at("there")})
	}
	add(entry{name: "far", tags: []string{"mi-lb.locality=local-only"}, datacenter: "dc2", instances: at("far")})
	add(entry{name: "checked", tags: []string{"mi-lb.check.interval=1s", "mi-lb.check.timeout=5s"}, meta: map[string]string{"mi-lb.check.path": "/"}, instances: one(healthy.address())})
	add(entry{name: "ill", tags: []string{"mi-lb.check.path=/ill", "mi-lb.check.interval=1s"}, instances: one(ill.address())})
	add(entry{name: "unchecked", tags: []string{"mi-lb.check.disable=true"}, instances: at("unchecked")})
	add(entry{name: "impatient", tags: []string{"mi-lb.timeout.server=200ms", "mi-lb.timeout.connect=2s", "mi-lb.timeout.tunnel=1m"}, instances: at("impatient")})
	add(entry{name: "narrow", tags: []string{"mi-lb.maxconn=1"}, instances: one(narrow.address())})
	add(entry{name: "disabled", tags: []string{"mi-lb.enable=false"}, instances: at("disabled")})
	add(entry{name: "vault", instances: at("vault")})
	add(entry{name: "nomad", tags: []string{"mi-lb.enable=true"}, instances: at("nomad")})
	add(entry{name: "before", tags: []string{"mi-lb.service=renamed"}, instances: at("renamed")})
	add(entry{name: "later", tags: []string{"mi-lb.backend.proto=h2c", "mi-lb.redirect.https=true", "mi-lb.hsts=1h", "mi-lb.cert=x", "mi-lb.ratelimit=9"}, instances: at("later")})
	add(entry{name: "private", tags: []string{"mi-lb.auth=me"}, instances: at("private")})
	add(entry{name: "internal", tags: []string{"mi-lb.allow=10.0.0.0/8"}, instances: at("internal")})
	add(entry{name: "fabio", tags: []string{
		"urlprefix-fabio.example.com/pre", "urlprefix-/anywhere", "urlprefix-stripped.example.com/gone strip=/gone",
	}, instances: at("fabio")})
	add(entry{name: "fabio-tcp", tags: []string{fmt.Sprintf("urlprefix-:%d proto=tcp", fabioPort)}, instances: at("fabio-tcp")})
	add(entry{name: "tagged", datacenter: "dc2", instances: map[string][]string{plain("there").address(): {"canary"}}})
	add(entry{name: "tagged", instances: map[string][]string{plain("here").address(): nil, plain("here canary").address(): {"canary"}}})
	writeYAML(t, file, map[string]any{"services": services})

	// What Consul's own tags and metadata say is the same; and the group is the edge's.
	grouped := []string{"mi-lb.group=internal,external"}
	entry{name: "meta", tags: grouped, meta: map[string]string{
		"mi-lb-host": "paths.example.com", "mi-lb-path": "/api,/v2", "mi-lb-path-strip": "true",
	}, instances: at("meta")}.register(t, agent)
	entry{name: "ungrouped", instances: at("ungrouped")}.register(t, agent)

	// Marathon's labels, and those of Marathon-lb.
	put := func(id string, port int, keys map[string]any, names ...string) {
		t.Helper()
		var tasks []marathon.FakeTask
		for _, name := range names {
			tasks = append(tasks, marathon.FakeTask{ID: name, Ports: []int{int(netip.MustParseAddrPort(plain(name).address()).Port())}})
		}
		if err := cluster.PutApp(document(t, id, port, keys), tasks...); err != nil {
			t.Fatal(err)
		}
	}
	put("/shop/by-id", appPort, labels("mi-lb.host", "app.example.com"), "by-id")
	put("/vhost", namedPort, labels("HAPROXY_GROUP", "external", "HAPROXY_0_VHOST", "old.example.com,older.example.com", "HAPROXY_0_PATH", "/pre"), "vhost")
	put("/withheld", 0, labels("HAPROXY_0_AUTH", "realm:user:secret"), "withheld")
	put("/off", 0, labels("HAPROXY_0_ENABLED", "false"), "off")
	put("/headed", 0, labels("HAPROXY_0_BACKEND_HEAD", "backend {backend}"), "headed")

	e := startEdge(t, edge.Options{Consul: "http://" + agent.HTTPAddress(), Marathon: [][]string{cluster.URLs()}, Config: map[string]any{
		"file": file, "datacenter": "dc1", "consul.groups": []string{"external"},
		"listen.https": []string{fmt.Sprintf("127.0.0.1:%d", https)}, "listen.app_id": []string{fmt.Sprintf("127.0.0.1:%d", appID)},
	}})

	for _, c := range []struct {
		host, path string
		status     int
		body       string
	}{
		{"shop.example.com", "/x", 200, "hosts /x forwarded"},
		{"SHOP.example.com:80", "/", 200, "hosts / forwarded"},
		{"any.wild.example.com", "/", 200, "hosts / forwarded"},
		{"wild.example.com", "/", 503, ""},
		{"two.any.wild.example.com", "/", 503, ""},
		{"shop.example.com.evil.org", "/", 503, ""},
		{"hosts.test", "/", 200, "hosts / forwarded"},
		{"paths.example.com", "/api/x?q=1", 200, "meta /x?q=1 forwarded"},
		{"paths.example.com", "/api", 200, "meta / forwarded"},
		{"paths.example.com", "/v2/x", 200, "meta /x forwarded"},
		{"paths.example.com", "/apix", 503, ""},
		{"paths.example.com", "/", 503, ""},
		{"meta.test", "/api/x", 200, "meta /api/x forwarded"},
		{"ungrouped.test", "/", 503, ""},
		{"ports.test", "/", 200, "ports / forwarded"},
		{"tcp.test", "/", 503, ""},
		{"local-first.test", "/", 200, "here / forwarded"},
		{"local-only.test", "/", 200, "here / forwarded"},
		{"far.test", "/", 503, ""},
		{"checked.test", "/", 200, "healthy / forwarded"},
		{"ill.test", "/", 503, ""},
		{"unchecked.test", "/", 200, "unchecked / forwarded"},
		{"impatient.test", "/", 200, "impatient / forwarded"},
		{"impatient.test", "/slow", 504, ""},
		{"disabled.test", "/", 503, ""},
		{"vault.test", "/", 503, ""},
		{"nomad.test", "/", 200, "nomad / forwarded"},
		{"renamed.test", "/", 200, "renamed / forwarded"},
		{"before.test", "/", 200, "renamed / forwarded"},
		{"later.test", "/", 200, "later / forwarded"},
		{"private.test", "/", 503, ""},
		{"internal.test", "/", 503, ""},
		{"fabio.example.com", "/prefix", 200, "fabio /prefix forwarded"},
		{"fabio.example.com", "/other", 503, ""},
		{"nobody.example.com", "/anywhere/x", 200, "fabio /anywhere/x forwarded"},
		{"stripped.example.com", "/gone/x", 200, "fabio /x forwarded"},
		{"tagged.service.dc2.consul", "/", 200, "there / forwarded"},
		{"canary.tagged.service.dc1.consul", "/", 200, "here canary / forwarded"},
		{"canary.tagged.service.consul", "/", 200, "here canary / forwarded"},
		{"nothing.tagged.service.consul", "/", 503, ""},
		{"hosts.service.consul", "/", 200, "hosts / forwarded"},
		{"app.example.com", "/", 200, "by-id / forwarded"},
		{"shop-by-id.test", "/", 200, "by-id / forwarded"},
		{"old.example.com", "/prefix", 200, "vhost /prefix forwarded"},
		{"older.example.com", "/pre", 200, "vhost /pre forwarded"},
		{"older.example.com", "/other", 503, ""},
		{"withheld.test", "/", 503, ""},
		{"off.test", "/", 503, ""},
		{"headed.test", "/", 200, "headed / forwarded"},
	} {
		expected(t, c.host+c.path, c.status, c.body, func() (edge.Answer, error) { return e.HTTP(c.host, c.path) })
	}
	for port, body := range map[int]string{
		httpPort: "ports / forwarded", tcpPort: "tcp / direct", fabioPort: "fabio-tcp / direct",
		appPort: "by-id / forwarded", namedPort: "vhost / forwarded",
	} {
		expected(t, fmt.Sprintf("port of %s", body), 200, body, func() (edge.Answer, error) { return e.Port(port) })
	}
	for id, want := range map[string]string{"/shop/by-id": "by-id / forwarded", "/Shop/By-ID": "by-id / forwarded", "/shop": "", "/withheld": ""} {
		status := map[bool]int{true: 200, false: 503}[want != ""]
		expected(t, "app id "+id, status, want, func() (edge.Answer, error) {
			return ask(fmt.Sprintf("http://127.0.0.1:%d/", appID), "", http.DefaultTransport, "X-Marathon-App-Id", id)
		})
	}
	// TLS that is passed through shows the server's own certificate.
	var shown []byte
	passing := &http.Transport{TLSClientConfig: &tls.Config{
		ServerName:         "secure.example.com",
		InsecureSkipVerify: true, // the certificate is compared below
		VerifyConnection:   func(s tls.ConnectionState) error { shown = s.PeerCertificates[0].Raw; return nil },
	}}
	t.Cleanup(passing.CloseIdleConnections)
	expected(t, "TLS passed through", 200, "secure / direct", func() (edge.Answer, error) {
		return ask(fmt.Sprintf("https://127.0.0.1:%d/", https), "secure.example.com", passing)
	})
	if !bytes.Equal(shown, secure.Certificate().Raw) {
		t.Error("the certificate is not the server's own")
	}

	for service, keys := range map[string][]string{
		"later":    {"mi-lb.backend.proto=h2c", "mi-lb.redirect.https=true", "mi-lb.hsts=1h", "mi-lb.cert=x", "mi-lb.ratelimit=9"},
		"private":  {"mi-lb.auth"},
		"internal": {"mi-lb.allow"},
		"withheld": {"HAPROXY_0_AUTH"},
		"headed":   {"HAPROXY_0_BACKEND_HEAD"},
	} {
		for _, key := range keys {
			key, _, _ = strings.Cut(key, "=")
			found := false
			for _, f := range e.Findings() {
				found = found || f.Code == "not-supported-yet" && f.Service == service && strings.HasPrefix(f.Key, key)
			}
			if !found {
				t.Errorf("no finding about %s of %s", key, service)
			}
		}
	}
	checkBalances(t, e, light, heavy)
	checkMaxConn(t, e, narrow)
	checkAddedAndSticky(t, e, agent)
	for _, b := range e.Routes().Backends {
		if b.ID == "unchecked" && !b.Check.Disabled {
			t.Errorf("the backend is checked: %+v", b.Check)
		}
	}
}

// ask makes one request, with headers as name and value in turn.
func ask(url, host string, transport http.RoundTripper, headers ...string) (edge.Answer, error) {
	request, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return edge.Answer{}, err
	}
	request.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		request.Header.Set(headers[i], headers[i+1])
	}
	response, err := (&http.Client{Transport: transport, Timeout: edge.Patience}).Do(request)
	if err != nil {
		return edge.Answer{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return edge.Answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}, err
}

// tally counts who answers so many requests.
func tally(t *testing.T, e *edge.Edge, host, path string, requests int) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for range requests {
		a, err := e.HTTP(host, path)
		if err != nil || a.Status != 200 {
			t.Fatalf("%s: %d %q %v", host, a.Status, a.Body, err)
		}
		name, _, _ := strings.Cut(a.Body, " /")
		counts[name]++
	}
	return counts
}

func checkBalances(t *testing.T, e *edge.Edge, light, heavy *echo) {
	t.Helper()
	if got := tally(t, e, "weights.test", "/", 200); got[light.name] < 40 || got[light.name] > 60 || got[light.name]+got[heavy.name] != 200 {
		t.Errorf("of weights 10 and 30: %v", got)
	}
	for _, host := range []string{"first.test", "uri.test"} {
		if got := tally(t, e, host, "/same", 20); len(got) != 1 {
			t.Errorf("%s: %v", host, got)
		}
	}
	uri := map[string]bool{}
	for i := range 40 {
		for name := range tally(t, e, "uri.test", fmt.Sprintf("/%d", i), 1) {
			uri[name] = true
		}
	}
	if len(uri) != 2 {
		t.Errorf("balance uri uses %v only", uri)
	}
	if got := tally(t, e, "global.test", "/", 20); len(got) != 2 {
		t.Errorf("locality global: %v", got)
	}
}

func checkMaxConn(t *testing.T, e *edge.Edge, narrow *echo) {
	t.Helper()
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			if a, err := e.HTTP("narrow.test", "/slow"); err != nil || a.Status != 200 {
				t.Errorf("a request that waits: %d %v", a.Status, err)
			}
		})
	}
	all.Wait()
	if most := narrow.most.Load(); most != 1 {
		t.Errorf("%d requests at once with maxconn=1", most)
	}
}

// checkAddedAndSticky is stickiness by cookie, also of an instance that is added at run
// time.
func checkAddedAndSticky(t *testing.T, e *edge.Edge, agent *consul.Agent) {
	t.Helper()
	sticky := entry{name: "sticky", tags: []string{"mi-lb.sticky=true", "mi-lb.group=external"}, instances: map[string][]string{}}
	names := []string{}
	cookies := map[string]string{} // by server
	learn := func() {
		t.Helper()
		name := fmt.Sprintf("server %d", len(names))
		names = append(names, name)
		sticky.instances[startEcho(t, name, (*httptest.Server).Start).address()] = nil
		sticky.register(t, agent)
		edge.Wait(t, "a cookie for "+name, func() error {
			a, err := e.HTTP("sticky.test", "/")
			if err != nil || a.Status != 200 {
				return fmt.Errorf("%d %q %v", a.Status, a.Body, err)
			}
			server, _, _ := strings.Cut(a.Body, " /")
			cookie, _, _ := strings.Cut(a.Header.Get("Set-Cookie"), ";")
			if cookies[server] = cookie; cookie == "" || cookies[name] == "" {
				return fmt.Errorf("the server %q, the cookie %q", server, cookie)
			}
			return nil
		})
	}
	learn()
	waitReloads(t, e, 1)
	learn()
	learn()
	waitReloads(t, e, 1)
	for server, cookie := range cookies {
		for range 10 {
			a, err := ask("http://"+e.HTTPAddress+"/", "sticky.test", http.DefaultTransport, "Cookie", cookie)
			if got, _, _ := strings.Cut(a.Body, " /"); err != nil || got != server {
				t.Errorf("with the cookie of %q answers %q (%v)", server, got, err)
			}
		}
	}
}
