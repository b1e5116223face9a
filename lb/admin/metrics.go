package admin

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// Metrics count what the driver does; a [haproxy.Observer].
type Metrics struct {
	applied    prometheus.Histogram
	operations *prometheus.CounterVec
	reloads    *prometheus.CounterVec
	repaired   *prometheus.CounterVec
}

var _ haproxy.Observer = (*Metrics)(nil)

// NewMetrics registers everything that mi-lb counts itself.
func NewMetrics(registry *prometheus.Registry, version string) *Metrics {
	m := &Metrics{
		applied: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "mi_lb_apply_seconds",
			Help:    "Time from when a change was received from its source to when HAProxy's traffic followed it.",
			Buckets: []float64{.001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10, 30},
		}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mi_lb_operations_total", Help: "Operations sent to HAProxy's runtime API, by kind.",
		}, []string{"kind"}),
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mi_lb_reloads_total", Help: "Reloads of HAProxy, by reason and whether HAProxy accepted.",
		}, []string{"reason", "outcome"}),
		repaired: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "mi_lb_drift_repaired_total", Help: "Differences between what HAProxy ran and what it should that were repaired, by kind.",
		}, []string{"kind"}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "mi_lb_build_info", Help: "1, with the version as label.", ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	registry.MustRegister(m.applied, m.operations, m.reloads, m.repaired, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Applied implements haproxy.Observer.
func (m *Metrics) Applied(latency time.Duration) { m.applied.Observe(latency.Seconds()) }

// Operated implements haproxy.Observer.
func (m *Metrics) Operated(kind string, count int) {
	m.operations.WithLabelValues(kind).Add(float64(count))
}

// Reloaded implements haproxy.Observer.
func (m *Metrics) Reloaded(reason string, ok bool) {
	outcome := "accepted"
	if !ok {
		outcome = "refused"
	}
	m.reloads.WithLabelValues(reason, outcome).Inc()
}

// Repaired implements haproxy.Observer.
func (m *Metrics) Repaired(kind string, count int) {
	m.repaired.WithLabelValues(kind).Add(float64(count))
}

// Collector reads, at each scrape, what the edge knows anyway.
func Collector(edge Edge, now func() time.Time) prometheus.Collector {
	return &collector{edge: edge, now: now}
}

type collector struct {
	edge Edge
	now  func() time.Time
}

var (
	descReady = prometheus.NewDesc("mi_lb_ready", "1 if the first table of all reachable sources runs in HAProxy.", nil, nil)
	descUp    = prometheus.NewDesc("mi_lb_source_current", "1 if the source's part of the world is what it says now, 0 if it is stale or missing.", []string{"source"}, nil)
	descAge   = prometheus.NewDesc("mi_lb_source_age_seconds", "Seconds since the source last answered.", []string{"source"}, nil)
	descHeld  = prometheus.NewDesc("mi_lb_source_held_instances", "Instances that the source no longer names and that are kept until that is confirmed.", []string{"source"}, nil)

	descFindings  = prometheus.NewDesc("mi_lb_findings", "Input that could not be honoured, by code.", []string{"code"}, nil)
	descServices  = prometheus.NewDesc("mi_lb_services", "Services known, by whether they are published.", []string{"published"}, nil)
	descRoutes    = prometheus.NewDesc("mi_lb_routes", "Routes, by kind.", []string{"kind"}, nil)
	descServers   = prometheus.NewDesc("mi_lb_servers", "Servers in all backends, by wanted state.", []string{"state"}, nil)
	descRevision  = prometheus.NewDesc("mi_lb_snapshot_revision", "Revision of the snapshot that HAProxy runs.", nil, nil)
	descHAProxy   = prometheus.NewDesc("mi_lb_haproxy_up", "1 if a HAProxy worker accepts connections.", []string{"version"}, nil)
	descOld       = prometheus.NewDesc("mi_lb_haproxy_old_workers", "Workers that were replaced and still finish sessions.", nil, nil)
	descLeftovers = prometheus.NewDesc("mi_lb_haproxy_leftovers", "Servers and backends that wait for the next reload to go.", nil, nil)
	descQuarantin = prometheus.NewDesc("mi_lb_quarantined_services", "Services left out because HAProxy refuses its configuration with them.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *collector) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, out) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	ready, _ := c.edge.Ready()
	gauge(descReady, truth(ready))
	for _, s := range c.edge.States() {
		name := s.Source.String()
		gauge(descUp, truth(s.Status == watch.Current), name)
		gauge(descAge, s.Age(c.now()).Seconds(), name)
		gauge(descHeld, float64(s.Held), name)
	}
	status := c.edge.Status()
	gauge(descHAProxy, truth(status.Running), status.Version)
	gauge(descOld, float64(len(status.OldWorkers)))
	gauge(descLeftovers, float64(status.Leftovers))
	gauge(descQuarantin, float64(len(status.Quarantined)))
	gauge(descRevision, float64(status.Revision))
	if table := c.edge.Table(); table != nil {
		collectTable(table, gauge)
	}
}

func collectTable(t *routing.Table, gauge func(*prometheus.Desc, float64, ...string)) {
	findings := map[string]int{}
	for _, f := range t.Findings {
		findings[f.Code]++
	}
	for code, n := range findings {
		gauge(descFindings, float64(n), code)
	}
	published := 0
	for _, s := range t.Services {
		if s.Published {
			published++
		}
	}
	gauge(descServices, float64(published), "true")
	gauge(descServices, float64(len(t.Services)-published), "false")
	routes := map[string]int{"port": len(t.Ports)}
	for _, r := range t.Routes {
		routes[string(r.Kind)]++
	}
	for kind, n := range routes {
		gauge(descRoutes, float64(n), kind)
	}
	servers := map[routing.ServerState]int{routing.Ready: 0, routing.Drain: 0, routing.Maint: 0}
	for _, b := range t.Backends {
		for _, s := range b.Servers {
			servers[s.State]++
		}
	}
	for state, n := range servers {
		gauge(descServers, float64(n), string(state))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
