package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/consul"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// world is two datacenters of real agents, each at an address of its own.
type world struct {
	t         *testing.T // whose end is the end of processes
	platform  component.Platform
	hosts     componenttest.Hosts
	root      string
	processes map[string]*componenttest.Process
}

func newWorld(t *testing.T) *world {
	t.Helper()
	root := t.TempDir()
	type node struct{ name, address string }
	dc1 := []node{{"a", "127.0.8.1"}, {"b", "127.0.8.2"}, {"c", "127.0.8.3"}, {"w", "127.0.8.9"}}
	dc2 := []node{{"x", "127.0.8.11"}, {"v", "127.0.8.19"}}
	var addresses []string
	var text strings.Builder
	for i, nodes := range [][]node{dc1, dc2} {
		fmt.Fprintf(&text, "[dc=dc%d]\n", i+1)
		for _, n := range nodes {
			fmt.Fprintf(&text, "%s private_ipv4=%s consul_client_addr=%s consul_data_dir=%s/%s/data consul_config_dir=%s/%s/etc\n",
				n.name, n.address, n.address, root, n.name, root, n.name)
			addresses = append(addresses, n.address)
		}
	}
	ports := componenttest.Ports(t, 5, addresses...)
	text.WriteString("[consul_servers]\na\nb\nc\nx\n[consul_clients]\nw\nv\n[all:vars]\nconsul_raft_multiplier=1\n")
	fmt.Fprintf(&text, "consul_source=preinstalled\nconsul_program=%s\nconsul_port_server=%d\nconsul_port_serf_lan=%d\nconsul_port_serf_wan=%d\nconsul_port_http=%d\nconsul_port_dns=%d\n",
		binary(t), ports[0], ports[1], ports[2], ports[3], ports[4])
	w := &world{t: t, platform: componenttest.Platform(t, text.String()), root: root, processes: map[string]*componenttest.Process{}}
	w.hosts = componenttest.Here(t, w.platform)
	return w
}

func (w *world) with(role cluster.Role) []*cluster.Node {
	var all []*cluster.Node
	for _, n := range w.platform.Cluster.Nodes() {
		if n.Has(role) {
			all = append(all, n)
		}
	}
	return all
}

func (w *world) start(t *testing.T, nodes ...*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		part := partOf(t, w.platform, n.Name)
		componenttest.Install(t, part, w.root)
		w.processes[n.Name] = componenttest.Start(w.t, part.Units[0])
	}
}

func (w *world) wait(t *testing.T, nodes ...*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		componenttest.Eventually(t, 2*time.Minute, n.Name+" is healthy", func(ctx context.Context) error {
			return of(n).Healthy(ctx, w.platform, n, w.hosts)
		})
	}
}

// configure does what is pending, the primary datacenter first.
func (w *world) configure(t *testing.T) (done []string) {
	t.Helper()
	for _, d := range w.platform.Cluster.Datacenters {
		for _, a := range w.pending(t, d) {
			if err := a.Do(t.Context()); err != nil {
				t.Fatal(err)
			}
			done = append(done, d.Name+" "+a.ID)
		}
	}
	return done
}

func (w *world) pending(t *testing.T, d *cluster.Datacenter) (actions []component.Action) {
	t.Helper()
	componenttest.Eventually(t, time.Minute, "what is pending in "+d.Name, func(ctx context.Context) (err error) {
		actions, err = consul.NewServer().(component.Configurer).Pending(ctx, w.platform, d, w.hosts)
		return err
	})
	return actions
}

// quorum is that of dc1.
func (w *world) quorum(t *testing.T) component.Quorum {
	t.Helper()
	q, err := consul.NewServer().(component.Quorate).Quorum(t.Context(), w.platform, w.platform.Cluster.Datacenters[0], w.hosts)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// call asks the agent of a node with a token.
func (w *world) call(t *testing.T, node string, token redact.Text, method, path string, body any) (int, string) {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://"+consul.HTTPAddress(componenttest.Node(t, w.platform, node))+path, bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	if !token.IsEmpty() {
		request.Header.Set("X-Consul-Token", token.Reveal())
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, err.Error()
	}
	return response.StatusCode, string(data)
}

func ids(actions []component.Action) []string {
	var all []string
	for _, a := range actions {
		all = append(all, a.ID)
	}
	return all
}

func TestTwoDatacentersBecomeOnePlatform(t *testing.T) {
	w := newWorld(t)
	dc1, dc2 := w.platform.Cluster.Datacenters[0], w.platform.Cluster.Datacenters[1]
	configurer := consul.NewServer().(component.Configurer)
	if _, err := configurer.Pending(t.Context(), w.platform, dc1, w.hosts); !errors.Is(err, component.ErrNotRunning) {
		t.Errorf("before it runs: %v", err)
	}
	if q := w.quorum(t); len(q.Serving) != 0 || !strings.HasPrefix(q.Lost, "Consul has no leader; ") {
		t.Errorf("before it runs: %+v", q)
	}
	servers, clients := w.with(cluster.ConsulServer), w.with(cluster.ConsulClient)
	w.start(t, servers...)
	w.wait(t, servers...)

	if got, want := ids(w.pending(t, dc1)), ids(configurer.Expected(w.platform, dc1)); !slices.Equal(got, want) {
		t.Errorf("pending in dc1: %v, expected: %v", got, want)
	}
	if got := ids(w.pending(t, dc2)); !slices.Equal(got, ids(configurer.Expected(w.platform, dc2))) {
		t.Errorf("pending in dc2: %v", got)
	}
	w.configure(t)
	for _, d := range w.platform.Cluster.Datacenters {
		if got := ids(w.pending(t, d)); len(got) != 0 {
			t.Errorf("pending in %s after it was done: %v", d.Name, got)
		}
	}
	w.wait(t, servers...)
	w.start(t, clients...)
	w.wait(t, clients...)

	t.Run("ACLs", w.testACLs)
	t.Run("drift", w.testDrift)
	t.Run("what is read again", w.testReload)
	t.Run("rolling", w.testRolling)
	t.Run("certificates", w.testCertificates)
	t.Run("gossip", w.testGossip)
	for _, n := range w.platform.Cluster.Nodes() {
		if changed := componenttest.Install(t, partOf(t, w.platform, n.Name), w.root); len(changed) != 0 {
			t.Errorf("%s: installed again, %v changes", n.Name, changed)
		}
	}
	t.Run("a datacenter away", w.testDatacenterAway)
}

func (w *world) testACLs(t *testing.T) {
	secret := func(purpose string) redact.Text { return w.platform.Secrets.ConsulToken(purpose).Secret }
	edge, registrator, agent := secret(secrets.EdgePurpose), secret(secrets.RegistratorPurpose), secret(secrets.AgentPurpose("w"))
	service := map[string]any{"Name": "web", "Port": 80}
	for _, c := range []struct {
		what, node   string
		token        redact.Text
		method, path string
		body         any
		status       int
		contains     string
	}{
		{"registrator registers", "w", registrator, "PUT", "/v1/agent/service/register", service, 200, ""},
		{"registrator lists its services", "w", registrator, "GET", "/v1/agent/services", nil, 200, `"web"`},
		{"registrator reads no nodes", "w", registrator, "GET", "/v1/catalog/nodes", nil, 200, "[]"},
		{"registrator writes no keys", "w", registrator, "PUT", "/v1/kv/x", "y", 403, ""},
		{"an edge reads its agent", "w", edge, "GET", "/v1/agent/self", nil, 200, `"dc1"`},
		{"an edge reads the nodes of the other datacenter", "w", edge, "GET", "/v1/catalog/nodes?dc=dc2", nil, 200, `"v"`},
		{"an edge of the other datacenter reads this one's", "v", edge, "GET", "/v1/catalog/nodes?dc=dc1", nil, 200, `"w"`},
		{"an edge registers nothing", "w", edge, "PUT", "/v1/agent/service/register", service, 403, ""},
		{"nobody reads no nodes", "w", redact.Text{}, "GET", "/v1/catalog/nodes", nil, 200, "[]"},
		{"nobody registers nothing", "w", redact.Text{}, "PUT", "/v1/agent/service/register", service, 403, ""},
		{"an agent reads no tokens", "w", agent, "GET", "/v1/acl/tokens", nil, 403, ""},
		{"an edge reads no tokens", "x", edge, "GET", "/v1/acl/tokens", nil, 403, ""},
	} {
		componenttest.Eventually(t, time.Minute, c.what, func(context.Context) error {
			status, body := w.call(t, c.node, c.token, c.method, c.path, c.body)
			if status != c.status || !strings.Contains(body, c.contains) {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
}

func (w *world) testDrift(t *testing.T) {
	dc1 := w.platform.Cluster.Datacenters[0]
	management := w.platform.Secrets.ConsulToken(secrets.ManagementPurpose).Secret
	edge := w.platform.Secrets.ConsulToken(secrets.EdgePurpose)
	for _, c := range []struct {
		method, path string
		body         any
	}{
		{"PUT", "/v1/acl/token/" + edge.Accessor, map[string]any{"Description": "changed"}},
		{"PUT", "/v1/acl/token", map[string]any{"Description": "mi-lb: agent of gone", "NodeIdentities": []any{map[string]any{"NodeName": "gone", "Datacenter": "dc1"}}}},
		{"DELETE", "/v1/acl/token/" + w.platform.Secrets.ConsulToken(secrets.DNSPurpose).Accessor, nil},
	} {
		if status, body := w.call(t, "a", management, c.method, c.path, c.body); status != 200 {
			t.Fatalf("%s: %d %s", c.path, status, body)
		}
	}
	actions := ids(w.pending(t, dc1))
	if len(actions) != 3 || actions[0] != "token/dns" || actions[1] != "token/edge" || !strings.HasPrefix(actions[2], "token/remove/gone/") {
		t.Errorf("pending: %v", actions)
	}
	w.configure(t)
	if got := ids(w.pending(t, dc1)); len(got) != 0 {
		t.Errorf("pending after it was done: %v", got)
	}
}

func (w *world) testReload(t *testing.T) {
	management := w.platform.Secrets.ConsulToken(secrets.ManagementPurpose).Secret
	read := func() (level string, connections int) {
		_, body := w.call(t, "w", management, "GET", "/v1/agent/self", nil)
		var self struct {
			DebugConfig struct {
				HTTPMaxConnsPerClient int
				Logging               struct{ LogLevel string }
			}
		}
		if err := json.Unmarshal([]byte(body), &self); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		return self.DebugConfig.Logging.LogLevel, self.DebugConfig.HTTPMaxConnsPerClient
	}
	begun := w.processes["w"].PID()
	for _, want := range []struct {
		level       string
		connections int
	}{{"debug", 900}, {"info", 1000}} {
		part := partOf(t, w.platform, "w")
		for i, f := range part.Files {
			part.Files[i].Content = strings.NewReplacer("\"info\"", fmt.Sprintf("%q", want.level), "_client\": 1000", fmt.Sprintf("_client\": %d", want.connections)).Replace(f.Content)
		}
		if changed := componenttest.Install(t, part, w.root); len(changed) != 1 || !strings.HasSuffix(changed[0], "/reload.json") {
			t.Errorf("changed: %v", changed)
		}
		w.processes["w"].Reload()
		componenttest.Eventually(t, time.Minute, "what was changed is read", func(context.Context) error {
			if level, connections := read(); !strings.EqualFold(level, want.level) || connections != want.connections {
				return fmt.Errorf("%s, %d", level, connections)
			}
			return nil
		})
	}
	if w.processes["w"].PID() != begun {
		t.Error("it was restarted")
	}
}

func (w *world) testRolling(t *testing.T) {
	roller := consul.NewServer().(component.Roller)
	d := w.platform.Cluster.Datacenters[0]
	servers := d.With(cluster.ConsulServer)
	order, err := roller.Order(t.Context(), w.platform, servers, w.hosts)
	if err != nil || len(order) != 3 {
		t.Fatalf("%v, %v", order, err)
	}
	leads := func(n *cluster.Node) bool {
		_, body := w.call(t, "w", redact.Text{}, "GET", "/v1/status/leader", nil)
		return strings.Contains(body, n.Address.String()+":")
	}
	for i, n := range order {
		if leads(n) != (i == 2) {
			t.Errorf("number %d leads: %v", i+1, leads(n))
		}
		if err := roller.BeforeRestart(t.Context(), w.platform, n, w.hosts); err != nil {
			t.Fatalf("before number %d: %v", i+1, err)
		}
		if leads(n) {
			t.Errorf("%s still leads when it is to be restarted", n.Name)
		}
		w.processes[n.Name].Stop()
		if q := w.quorum(t); q.Lost != "" || slices.Contains(q.Serving, n.Name) {
			t.Errorf("without number %d: %+v", i+1, q)
		}
		if i == 0 {
			componenttest.Eventually(t, time.Minute, "no second one may go", func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
				defer cancel()
				err := roller.BeforeRestart(ctx, w.platform, order[1], w.hosts)
				if err == nil || !strings.Contains(err.Error(), "cost the quorum") {
					return fmt.Errorf("%v", err)
				}
				return nil
			})
		}
		w.start(t, n)
		w.wait(t, n)
		if err := roller.AfterRestart(t.Context(), w.platform, n, w.hosts); err != nil {
			t.Fatalf("after number %d: %v", i+1, err)
		}
	}
}

// testCertificates changes the authority in its three steps, with a reload after
// each, while RPC goes on.
func (w *world) testCertificates(t *testing.T) {
	for range 3 {
		step, err := w.platform.Secrets.AdvanceRotation(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.platform.Secrets.Ensure(w.platform.Cluster, time.Now()); err != nil {
			t.Fatal(err)
		}
		for _, n := range w.platform.Cluster.Nodes() {
			part := partOf(t, w.platform, n.Name)
			changed := componenttest.Install(t, part, w.root)
			for _, f := range part.Files {
				if slices.Contains(changed, f.Path) && len(f.Restarts) > 0 {
					t.Errorf("%s: %s restarts", step, f.Path)
				}
			}
			w.processes[n.Name].Reload()
		}
		w.wait(t, w.platform.Cluster.Nodes()...)
	}
	// New connections, by certificates of the new authority alone.
	for _, name := range []string{"w", "x"} {
		w.processes[name].Stop()
		w.start(t, componenttest.Node(t, w.platform, name))
	}
	w.wait(t, w.platform.Cluster.Nodes()...)
}

// testGossip changes the gossip key as "secrets rotate-gossip" does, cut off in all
// places, and then by a bundle that somebody has changed.
func (w *world) testGossip(t *testing.T) {
	d := w.platform.Cluster.Datacenters[0]
	bundle := w.platform.Secrets
	management := bundle.ConsulToken(secrets.ManagementPurpose).Secret
	keys := func() int {
		t.Helper()
		var rings []struct{ Keys map[string]int }
		componenttest.Eventually(t, time.Minute, "all agents answer", func(context.Context) error {
			_, body := w.call(t, "a", management, "GET", "/v1/operator/keyring", nil)
			if err := json.Unmarshal([]byte(body), &rings); err != nil || len(rings) != 3 {
				return fmt.Errorf("%v, %d pools: %s", err, len(rings), body)
			}
			return nil
		})
		most := 0
		for _, r := range rings {
			most = max(most, len(r.Keys))
		}
		return most
	}
	if err := bundle.BeginGossip(); err != nil {
		t.Fatal(err)
	}
	old, next := bundle.GossipKey(), bundle.NextGossipKey()
	v := componenttest.Node(t, w.platform, "v")

	// A node that is away would be locked out.
	w.processes["v"].Kill()
	componenttest.Eventually(t, time.Minute, "no key is shared without a node", func(ctx context.Context) error {
		if err := consul.ShareGossipKey(ctx, w.platform, w.hosts, next); err == nil || !strings.Contains(err.Error(), "these do not: v;") {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
	w.start(t, v)
	w.wait(t, v)

	// It was cut off when all know the key, or when all use it.
	for _, method := range []string{"POST", "PUT"} {
		componenttest.Eventually(t, time.Minute, "all agents answer", func(context.Context) error {
			if status, body := w.call(t, "a", management, method, "/v1/operator/keyring", map[string]string{"Key": next.Reveal()}); status != 200 {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
		if got := ids(w.pending(t, d)); len(got) != 0 {
			t.Errorf("pending while it is changed: %v", got)
		}
		if problems := consul.NewServer().(component.Checker).Check(w.platform, d.Nodes[0]); len(problems) != 1 || problems[0].Fatal {
			t.Errorf("problems: %+v", problems)
		}
	}
	componenttest.Eventually(t, time.Minute, "the key is shared", func(ctx context.Context) error {
		return consul.ShareGossipKey(ctx, w.platform, w.hosts, next)
	})
	bundle.EndGossip()
	if bundle.GossipKey() != next || !bundle.NextGossipKey().IsEmpty() {
		t.Error("the bundle does not have the new key")
	}
	if n := keys(); n != 2 {
		t.Errorf("%d keys are known before machines start with the new one", n)
	}
	for _, n := range w.platform.Cluster.Nodes() {
		for _, f := range componenttest.Install(t, partOf(t, w.platform, n.Name), w.root) {
			if !strings.HasSuffix(f, "/start.json") {
				t.Errorf("%s changes with the gossip key", f)
			}
		}
	}
	if got := ids(w.pending(t, d)); !slices.Equal(got, []string{"gossip/key"}) {
		t.Errorf("pending: %v", got)
	}
	w.configure(t)
	if got := ids(w.pending(t, d)); len(got) != 0 || keys() != 1 {
		t.Errorf("pending after it was done: %v; %d keys", got, keys())
	}

	// A machine that begins anew has the new key only.
	w.processes["v"].Stop()
	if err := os.RemoveAll(w.root + "/v/data"); err != nil {
		t.Fatal(err)
	}
	w.start(t, v)
	w.wait(t, w.platform.Cluster.Nodes()...)

	// Somebody puts the old one into the bundle.
	if err := bundle.Set("consul/gossip-key", old); err != nil {
		t.Fatal(err)
	}
	// Each kind of question loses an agent's answer once.
	lossy := componenttest.Hosts{}
	lost := &loss{}
	for node, host := range w.hosts {
		lossy[node] = lossyHost{host, lost}
	}
	actions, err := consul.NewServer().(component.Configurer).Pending(t.Context(), w.platform, d, lossy)
	if err != nil || !slices.Equal(ids(actions), []string{"gossip/key"}) {
		t.Fatalf("pending: %v, %v", ids(actions), err)
	}
	if err := actions[0].Do(t.Context()); err != nil {
		t.Error(err)
	}
	if want := []string{"DELETE ", "GET ", "GET local-only=true", "POST ", "PUT "}; !slices.Equal(lost.kinds(), want) {
		t.Errorf("answers were lost to %q, not to %q", lost.kinds(), want)
	}
	if got := ids(w.pending(t, d)); len(got) != 0 {
		t.Errorf("pending after it was done: %v", got)
	}
	for _, n := range w.platform.Cluster.Nodes() {
		componenttest.Install(t, partOf(t, w.platform, n.Name), w.root)
	}
	w.wait(t, w.platform.Cluster.Nodes()...)
}

// loss has the first question of each kind about the keyring answered as Consul does
// when one of its agents was not heard.
type loss struct {
	mu    sync.Mutex
	asked map[string]bool
}

func (l *loss) kinds() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.asked))
}

func (l *loss) first(kind string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.asked[kind] {
		return false
	}
	if l.asked == nil {
		l.asked = map[string]bool{}
	}
	l.asked[kind] = true
	return true
}

type lossyHost struct {
	component.Host
	loss *loss
}

func (h lossyHost) HTTPClient(network, address string) *http.Client {
	inner := *h.Host.HTTPClient(network, address)
	through := inner.Transport
	inner.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		response, err := through.RoundTrip(r)
		if err == nil && r.URL.Path == "/v1/operator/keyring" && h.loss.first(r.Method+" "+r.URL.RawQuery) {
			response.Body.Close()
			response.StatusCode = http.StatusInternalServerError
			response.Body = io.NopCloser(strings.NewReader("1 error occurred:\n\t* dc1 (LAN) error: 5/6 nodes reported success\n\n"))
		}
		return response, err
	})
	return &inner
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// testDatacenterAway has the other datacenter's machines go: this one is healthy.
func (w *world) testDatacenterAway(t *testing.T) {
	for _, name := range []string{"x", "v"} {
		w.processes[name].Kill()
	}
	dc1 := w.platform.Cluster.Datacenters[0]
	away := w.hosts.Without("x", "v")
	for _, n := range dc1.Nodes {
		componenttest.Eventually(t, time.Minute, n.Name+" is healthy", func(ctx context.Context) error {
			return of(n).Healthy(ctx, w.platform, n, away)
		})
	}
	componenttest.Eventually(t, time.Minute, "nothing is pending", func(ctx context.Context) error {
		actions, err := consul.NewServer().(component.Configurer).Pending(ctx, w.platform, dc1, away)
		if err == nil && len(actions) > 0 {
			err = fmt.Errorf("%v", ids(actions))
		}
		return err
	})
	if _, err := consul.NewServer().(component.Configurer).Pending(t.Context(), w.platform, w.platform.Cluster.Datacenters[1], away); err == nil || errors.Is(err, component.ErrNotRunning) {
		t.Errorf("what is pending where nobody is reached: %v", err)
	}
}
