package mesos

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/api"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// MasterAddress is where a master listens.
func MasterAddress(n *cluster.Node) string {
	port := vars.For("mesos-master", n).Port("mesos_master_port", MasterPort)
	return net.JoinHostPort(n.Address.String(), strconv.Itoa(port))
}

// Metrics are the metrics of a master or an agent, by name.
type Metrics map[string]float64

// MasterMetrics asks a master, from its own machine.
func MasterMetrics(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) (Metrics, error) {
	host, err := a.Host(n.Name)
	if err != nil {
		return nil, err
	}
	return AskMetrics(ctx, p, n, host, MasterAddress(n))
}

// AskMetrics asks whatever listens on an address of a node for its metrics.
func AskMetrics(ctx context.Context, p component.Platform, n *cluster.Node, host component.Host, address string) (Metrics, error) {
	var m Metrics
	err := api.JSON(ctx, host, api.Request{URL: "http://" + address + "/metrics/snapshot", Login: Operator(p, n)}, &m)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", n.Name, err)
	}
	return m, nil
}

// ErrNoLeader is a datacenter none of whose masters leads.
var ErrNoLeader = errors.New("no Mesos master is elected")

// Leader is the elected master of a datacenter. Masters that are not reached are
// passed over.
func Leader(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (*cluster.Node, error) {
	var leaders []*cluster.Node
	var why []error
	for _, n := range d.With(cluster.MesosMaster) {
		m, err := MasterMetrics(ctx, p, n, a)
		if err != nil {
			why = append(why, err)
			continue
		}
		if m["master/elected"] == 1 {
			leaders = append(leaders, n)
		}
	}
	switch len(leaders) {
	case 1:
		return leaders[0], nil
	case 0:
		return nil, errors.Join(append([]error{fmt.Errorf("%s: %w", d.Name, ErrNoLeader)}, why...)...)
	}
	return nil, fmt.Errorf("%s: %d Mesos masters think that they are elected: %s and %s", d.Name, len(leaders), leaders[0].Name, leaders[1].Name)
}

// Agent is what a master knows of an agent.
type Agent struct {
	Info struct {
		ID       ID     `json:"id"`
		Hostname string `json:"hostname"`
		Port     int    `json:"port"`
	} `json:"agent_info"`
	Active      bool `json:"active"`
	Deactivated bool `json:"deactivated"`
	Drain       *struct {
		State string `json:"state"` // DRAINING, DRAINED
	} `json:"drain_info"`
}

// ID is an id as Mesos encodes it.
type ID struct {
	Value string `json:"value"`
}

// call is a request to the operator API of the datacenter's leader.
func call(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access, body, into any) error {
	leader, err := Leader(ctx, p, d, a)
	if err != nil {
		return err
	}
	host, err := a.Host(leader.Name)
	if err != nil {
		return err
	}
	return api.JSON(ctx, host, api.Request{
		Method: http.MethodPost, URL: "http://" + MasterAddress(leader) + "/api/v1", Login: Operator(p, leader), Body: body,
	}, into)
}

// Agents are the agents that a datacenter's leader knows.
func Agents(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) ([]Agent, error) {
	var answer struct {
		GetAgents struct {
			Agents []Agent `json:"agents"`
		} `json:"get_agents"`
	}
	if err := call(ctx, p, d, a, map[string]string{"type": "GET_AGENTS"}, &answer); err != nil {
		return nil, fmt.Errorf("list the agents of %s: %w", d.Name, err)
	}
	return answer.GetAgents.Agents, nil
}

// Drain has an agent's tasks run elsewhere, and waits until none is left on it.
// Tasks get at most the grace to end by themselves.
func Drain(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access, id string, grace time.Duration) error {
	body := map[string]any{"type": "DRAIN_AGENT", "drain_agent": map[string]any{
		"agent_id": ID{id}, "max_grace_period": map[string]int64{"seconds": int64(grace.Seconds())},
	}}
	if err := call(ctx, p, d, a, body, nil); err != nil {
		return fmt.Errorf("drain agent %s: %w", id, err)
	}
	for {
		agents, err := Agents(ctx, p, d, a)
		if err != nil {
			return fmt.Errorf("wait until agent %s is drained: %w", id, err)
		}
		drained := true
		for _, agent := range agents {
			if agent.Info.ID.Value == id && (agent.Drain == nil || agent.Drain.State != "DRAINED") {
				drained = false
			}
		}
		if drained {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait until agent %s is drained: %w", id, ctx.Err())
		case <-time.After(2 * time.Second):
		}
	}
}

// MarkGone says that an agent's id will never come back, so that what it ran is
// known to be lost.
func MarkGone(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access, id string) error {
	body := map[string]any{"type": "MARK_AGENT_GONE", "mark_agent_gone": map[string]any{"agent_id": ID{id}}}
	if err := call(ctx, p, d, a, body, nil); err != nil {
		return fmt.Errorf("mark agent %s gone: %w", id, err)
	}
	return nil
}

// Reactivate lets an agent that was drained have tasks again.
func Reactivate(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access, id string) error {
	body := map[string]any{"type": "REACTIVATE_AGENT", "reactivate_agent": map[string]any{"agent_id": ID{id}}}
	if err := call(ctx, p, d, a, body, nil); err != nil {
		return fmt.Errorf("reactivate agent %s: %w", id, err)
	}
	return nil
}
