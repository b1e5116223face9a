package admin

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// fake is an edge that is what the test says.
type fake struct {
	table   *routing.Table
	ready   string // why not; "" if it is
	status  haproxy.Status
	signals []string
}

func (f *fake) Table() *routing.Table   { return f.table }
func (f *fake) Ready() (bool, string)   { return f.ready == "", f.ready }
func (f *fake) Status() haproxy.Status  { return f.status }
func (f *fake) Events() []haproxy.Event { return []haproxy.Event{{Kind: "applied", Operations: 3}} }
func (f *fake) States() []watch.State {
	return []watch.State{{Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Status: watch.Stale, LastSuccess: time.Now().Add(-time.Minute), Held: 2, LastError: "no leader"}}
}
func (f *fake) Configuration() ([]byte, error)   { return []byte("global\n"), nil }
func (f *fake) Resync(context.Context) error     { f.signals = append(f.signals, "resync"); return nil }
func (f *fake) Reload(ctx context.Context) error { return errors.New("line 3: unknown keyword") }

func running() *fake {
	snapshot := &watch.Snapshot{Revision: 7, Datacenter: "dc1", Parts: []*watch.Part{{
		Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1",
		Services: map[string]*watch.Service{
			"web": {Name: "web", Instances: []watch.Instance{{
				ID: "<script>alert(1)</script>", Node: "n1", Address: netip.MustParseAddrPort("10.0.0.1:80"),
				Tags: []string{"mi-lb.port=9000", "mi-lb.hots=x"},
			}}},
			"consul": {Name: "consul", Instances: []watch.Instance{{ID: "c", Node: "n1", Address: netip.MustParseAddrPort("10.0.0.1:8300")}}},
		},
	}, {
		Source: watch.Source{Kind: watch.Marathon, Name: "m"}, Datacenter: "dc1",
		Apps: map[string]*watch.App{"/shop": {ID: "/shop", Tasks: []watch.Task{{ID: "shop.1"}}}},
	}}}
	return &fake{
		table:  routing.Compile(snapshot, routing.Policy{Domain: "example.com", ConsulDomain: "consul"}, nil),
		status: haproxy.Status{Running: true, Version: "2.6.12", Worker: 42, OldWorkers: []int{40, 41}, Revision: 7},
	}
}

func get(t *testing.T, edge Edge, target string) (int, string) {
	t.Helper()
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry, "test")
	metrics.Applied(3 * time.Millisecond)
	metrics.Operated("set-server-state", 2)
	metrics.Reloaded("new-backend", true)
	metrics.Repaired("server-state", 1)
	registry.MustRegister(Collector(edge, time.Now))
	server := httptest.NewServer(Handler(edge, registry, "test", slog.New(slog.NewTextHandler(io.Discard, nil))))
	defer server.Close()
	response, err := http.Get(server.URL + target)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestEndpointsTellWhatRuns(t *testing.T) {
	for target, want := range map[string][]string{
		"/healthz":                            {"ok"},
		"/readyz":                             {"ready"},
		"/v1/routes":                          {`"host": "web.example.com"`, `"revision": 7`, `"number": 9000`},
		"/v1/services":                        {`"name": "web"`, `"published": false`, "infrastructure"},
		"/v1/sources":                         {`"source": {`, `"status": "stale"`, `"held": 2`, `"lastError": "no leader"`, `"ageSeconds": 6`},
		"/v1/findings":                        {`"code": "unknown-key"`, `did you mean`},
		"/v1/events":                          {`"operations": 3`},
		"/v1/status":                          {`"worker": 42`, `"services": 3`, `"ports": 1`},
		"/v1/explain?host=WEB.example.com:80": {`leads to service \"web\"`},
		"/v1/explain?port=9000":               {`port 9000 is open`},
		"/v1/explain?app=/shop":               {`leads to service \"shop\"`},
		"/_haproxy_health_check":              {"ok"},
		"/_haproxy_getconfig":                 {"global"},
		"/_haproxy_getvhostmap":               {"web.example.com web\n", "web.service.consul web\n"},
		"/_haproxy_getappmap":                 {"/shop shop\n"},
		"/_haproxy_getpids":                   {"42 40 41"},
		"/metrics": {
			`mi_lb_source_age_seconds{source="consul/dc1"} 6`, `mi_lb_findings{code="unknown-key"} 1`, "mi_lb_haproxy_old_workers 2",
			`mi_lb_apply_seconds_bucket{le="0.005"} 1`, `mi_lb_reloads_total{outcome="accepted",reason="new-backend"} 1`,
			`mi_lb_operations_total{kind="set-server-state"} 2`, `mi_lb_drift_repaired_total{kind="server-state"} 1`,
			`mi_lb_source_current{source="consul/dc1"} 0`, `mi_lb_snapshot_revision 7`, `mi_lb_build_info{version="test"} 1`,
		},
	} {
		t.Run(strings.TrimPrefix(target, "/"), func(t *testing.T) {
			status, body := get(t, running(), target)
			if status != http.StatusOK {
				t.Errorf("status %d: %s", status, body)
			}
			for _, w := range want {
				if !strings.Contains(body, w) {
					t.Errorf("no %s in\n%s", w, body)
				}
			}
		})
	}
}

func TestBeforeTheFirstTableNothingIsSaidToBeEmpty(t *testing.T) {
	edge := &fake{ready: "waiting for consul/dc1"}
	for _, target := range []string{"/readyz", "/v1/routes", "/v1/services", "/v1/findings", "/v1/explain?port=1", "/_haproxy_getvhostmap", "/_haproxy_getpids", "/_haproxy_health_check"} {
		if status, body := get(t, edge, target); status != http.StatusServiceUnavailable {
			t.Errorf("%s: status %d: %s", target, status, body)
		}
	}
	if status, body := get(t, edge, "/readyz"); !strings.Contains(body, "waiting for consul/dc1") {
		t.Errorf("status %d: %s", status, body)
	}
	if status, _ := get(t, edge, "/"); status != http.StatusOK {
		t.Errorf("page: status %d", status)
	}
}

func TestQuestionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, query := range []string{"", "?port=x", "?port=0", "?port=70000", "?path=/x"} {
		if status, body := get(t, running(), "/v1/explain"+query); status != http.StatusBadRequest {
			t.Errorf("%s: status %d: %s", query, status, body)
		}
	}
}

func TestPageShowsEverythingAndRunsNothing(t *testing.T) {
	status, body := get(t, running(), "/")
	if status != http.StatusOK || strings.Contains(body, "<script>") {
		t.Errorf("status %d: %s", status, body)
	}
	for _, want := range []string{"web.example.com", "&lt;script&gt;", "unknown-key", "9000", "infrastructure", "no leader", "worker 42"} {
		if !strings.Contains(body, want) {
			t.Errorf("no %q on the page", want)
		}
	}
}

func TestSignalsOfMarathonLB(t *testing.T) {
	edge := running()
	if status, _ := get(t, edge, "/_mlb_signal/hup"); status != http.StatusOK || len(edge.signals) != 1 {
		t.Errorf("hup: %d, %v", status, edge.signals)
	}
	if status, body := get(t, edge, "/_mlb_signal/usr1"); status != http.StatusInternalServerError || !strings.Contains(body, "line 3") {
		t.Errorf("usr1: %d %s", status, body)
	}
}

func FuzzExplain(f *testing.F) {
	f.Add("a.org", "/x", "/app", "s", "1")
	f.Add("\xff\n", "\x00", "", "", "")
	edge := running()
	handler := Handler(edge, prometheus.NewRegistry(), "test", slog.New(slog.NewTextHandler(io.Discard, nil)))
	f.Fuzz(func(t *testing.T, host, path, app, sni, port string) {
		query := url.Values{"host": {host}, "path": {path}, "app": {app}, "sni": {sni}, "port": {port}}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/v1/explain?"+query.Encode(), nil))
		if w.Code != http.StatusOK && w.Code != http.StatusBadRequest {
			t.Errorf("status %d", w.Code)
		}
	})
}
