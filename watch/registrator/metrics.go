package registrator

import "github.com/prometheus/client_golang/prometheus"

// metrics are the registrator's own; none of them grows with services.
type metrics struct {
	services, containers, pending prometheus.Gauge
	dockerUp, consulUp            prometheus.Gauge
	reconciled                    prometheus.Gauge
	dockerLost                    prometheus.Counter
	operations                    *prometheus.CounterVec
	findings                      *prometheus.GaugeVec
	latency                       *prometheus.HistogramVec
}

func newMetrics(registerer prometheus.Registerer) *metrics {
	const namespace, subsystem = "mi_lb", "registrator"
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	m := &metrics{
		services:   gauge("services", "Services that the running containers ask for."),
		containers: gauge("containers", "Containers that run."),
		pending:    gauge("services_pending", "Services that differ between what containers ask for and what the agent has."),
		dockerUp:   gauge("docker_up", "Whether Docker's event stream is connected."),
		consulUp:   gauge("consul_up", "Whether the Consul agent answered last time."),
		reconciled: gauge("last_reconciled_timestamp_seconds", "When the agent's services last were known to be what containers ask for."),
		dockerLost: prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem,
			Name: "docker_connections_lost_total", Help: "Times that Docker was out of reach."}),
		operations: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem,
			Name: "operations_total", Help: "Writes to the Consul agent, by operation and result."}, []string{"operation", "result"}),
		findings: prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem,
			Name: "findings", Help: "What containers ask for and could not be honoured, by code."}, []string{"code"}),
		latency: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Subsystem: subsystem,
			Name: "event_to_operation_seconds", Help: "From Docker's event to the agent's answer.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"operation"}),
	}
	if registerer != nil {
		registerer.MustRegister(m.services, m.containers, m.pending, m.dockerUp, m.consulUp, m.reconciled, m.dockerLost, m.operations, m.findings, m.latency)
	}
	return m
}

func (m *metrics) setDocker(up bool) {
	value := 0.0
	if up {
		value = 1
	}
	m.dockerUp.Set(value)
}

// setFindings replaces all counts.
func (m *metrics) setFindings(counts map[string]int) {
	m.findings.Reset()
	for code, n := range counts {
		m.findings.WithLabelValues(code).Set(float64(n))
	}
}
