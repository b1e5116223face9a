package subject

import (
	"fmt"
	"syscall"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

// Defaults are the keys that test/edge sets to what is quick in tests, as they are
// without a configuration.
func Defaults() map[string]any {
	return map[string]any{
		"log.level": "info", "haproxy.reload_every": "2s", "haproxy.drift_every": "5s", "haproxy.drain": "30s", "haproxy.threads": Threads,
	}
}

// MiLB is mi-lb with its default configuration.
var MiLB = Kind{Name: "mi-lb", Start: func(p *program.Program, b Binaries, agent *consul.Agent) Subject {
	return StartMiLB(p, b, agent, nil)
}}

// MiLBEdge is mi-lb as a subject, and as an edge.
type MiLBEdge struct {
	*edge.Edge
	agent *consul.Agent
}

// StartMiLB runs mi-lb with more configuration.
func StartMiLB(p *program.Program, b Binaries, agent *consul.Agent, config map[string]any) *MiLBEdge {
	all := Defaults()
	all["haproxy.path"] = b.HAProxy
	for key, value := range config {
		all[key] = value
	}
	e := edge.New(p, edge.Options{Binary: b.MiLB, Consul: "http://" + agent.HTTPAddress(), Config: all})
	e.Start()
	return &MiLBEdge{e, agent}
}

func (m *MiLBEdge) HTTPAddress() string  { return m.Edge.HTTPAddress }
func (m *MiLBEdge) Control() int         { return m.PID() }
func (m *MiLBEdge) HAProxy() []int       { return m.Left() }
func (m *MiLBEdge) Agent() *consul.Agent { return m.agent }

func (m *MiLBEdge) Ended() string {
	if err := syscall.Kill(m.PID(), 0); err != nil {
		return fmt.Sprintf("mi-lb has ended: %v", err)
	}
	return ""
}
