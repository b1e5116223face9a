package edge

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/mi-lb/mi-lb/lb/admin"
	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

var adminClient = &http.Client{Timeout: 10 * time.Second}

// get asks the admin interface.
func (e *Edge) get(path string) (code int, body []byte, err error) {
	response, err := adminClient.Get("http://" + e.Admin + path)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// Ask is the admin interface's answer to a path that answers 200.
func (e *Edge) Ask(path string) []byte {
	e.t.Helper()
	code, body, err := e.get(path)
	if err != nil || code != http.StatusOK {
		e.t.Fatalf("ask mi-lb for %s: %d %s %v", path, code, body, err)
	}
	return body
}

func ask[T any](e *Edge, path string) T {
	e.t.Helper()
	var value T
	body := e.Ask(path)
	if err := json.Unmarshal(body, &value); err != nil {
		e.t.Fatalf("read mi-lb's %s: %v\n%s", path, err, body)
	}
	return value
}

// Status is /v1/status.
func (e *Edge) Status() admin.Status { e.t.Helper(); return ask[admin.Status](e, "/v1/status") }

// Routes is /v1/routes.
func (e *Edge) Routes() admin.Routes { e.t.Helper(); return ask[admin.Routes](e, "/v1/routes") }

// Services is /v1/services.
func (e *Edge) Services() []routing.Service {
	e.t.Helper()
	return ask[[]routing.Service](e, "/v1/services")
}

// Sources is /v1/sources.
func (e *Edge) Sources() []admin.Source { e.t.Helper(); return ask[[]admin.Source](e, "/v1/sources") }

// Source is one row of /v1/sources, by its name ("consul/dc1"); without a status if
// there is none of that name.
func (e *Edge) Source(name string) admin.Source {
	e.t.Helper()
	for _, s := range e.Sources() {
		if s.Source.String() == name {
			return s
		}
	}
	return admin.Source{}
}

// Findings is /v1/findings.
func (e *Edge) Findings() []watch.Finding {
	e.t.Helper()
	return ask[[]watch.Finding](e, "/v1/findings")
}

// Events is /v1/events.
func (e *Edge) Events() []haproxy.Event { e.t.Helper(); return ask[[]haproxy.Event](e, "/v1/events") }

// Explain is /v1/explain for a request by host and path.
func (e *Edge) Explain(host, path string) routing.Explanation {
	e.t.Helper()
	return ask[routing.Explanation](e, "/v1/explain?"+url.Values{"host": {host}, "path": {path}}.Encode())
}

// Server is the server of that address in the running table, in the backend of that
// id; nil if there is none.
func (e *Edge) Server(backend, address string) *routing.Server {
	e.t.Helper()
	for _, b := range e.Routes().Backends {
		for i := range b.Servers {
			if b.ID == backend && b.Servers[i].Address.String() == address {
				return &b.Servers[i]
			}
		}
	}
	return nil
}

// Metric is the sum of the samples of that name whose labels include those given, as
// name and value in turn. Of a histogram it is the number of observations. It is 0
// where there is none: counters begin to exist when they first count.
func (e *Edge) Metric(name string, labels ...string) float64 {
	e.t.Helper()
	if len(labels)%2 != 0 {
		e.t.Fatalf("labels of %s: %q has a name without a value", name, labels)
	}
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(e.Ask("/metrics")))
	if err != nil {
		e.t.Fatalf("read mi-lb's metrics: %v", err)
	}
	sum := 0.0
	for _, m := range families[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		matches := true
		for i := 0; i < len(labels); i += 2 {
			matches = matches && has[labels[i]] == labels[i+1]
		}
		if matches {
			// At most one of them is there.
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// Reloads is how often HAProxy was reloaded since mi-lb started, whatever came of it.
func (e *Edge) Reloads() int {
	e.t.Helper()
	return int(e.Metric("mi_lb_reloads_total"))
}

// WaitSource returns when the source has the status.
func (e *Edge) WaitSource(name string, status watch.Status) admin.Source {
	e.t.Helper()
	var source admin.Source
	Wait(e.t, fmt.Sprintf("source %s %s", name, status), func() error {
		if source = e.Source(name); source.Status != status {
			return fmt.Errorf("it is %+v", source)
		}
		return nil
	})
	return source
}
