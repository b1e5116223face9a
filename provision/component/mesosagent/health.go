package mesosagent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/mesos"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Healthy says whether the agent is registered, by what it says and by what the
// datacenter's leader says. An agent that an operator drained or deactivated is
// healthy, too.
func (agent) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	s, problems := read(p, n, vars.For(name, n))
	if s == nil {
		return fmt.Errorf("%s: the settings of the agent cannot be told: %s", n.Name, problems[0].Message)
	}
	m, err := mesos.AskMetrics(ctx, p, n, host, s.address)
	if err != nil {
		return err
	}
	if m["slave/registered"] != 1 {
		return fmt.Errorf("%s: the agent is not registered with a master", n.Name)
	}
	known, err := find(ctx, p, n, a, s)
	if err != nil {
		return err
	}
	if !known.Active && known.Drain == nil && !known.Deactivated {
		return fmt.Errorf("%s: the master has the agent as inactive", n.Name)
	}
	return nil
}

const drainGrace = 10 * time.Minute

// errUnknown is an agent that the leader does not know.
var errUnknown = errors.New("the leading master does not know the agent")

// find is the agent as the datacenter's leader has it: the active one, if the
// node has had several.
func find(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access, s *settings) (mesos.Agent, error) {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	agents, err := mesos.Agents(ctx, p, d, a)
	if err != nil {
		return mesos.Agent{}, err
	}
	found := mesos.Agent{}
	for _, agent := range agents {
		if net.JoinHostPort(agent.Info.Hostname, strconv.Itoa(agent.Info.Port)) == s.address && (found.Info.ID.Value == "" || agent.Active) {
			found = agent
		}
	}
	if found.Info.ID.Value == "" {
		return found, fmt.Errorf("%s: %w", n.Name, errUnknown)
	}
	return found, nil
}

// Order leaves the order as it is: agents have no leader.
func (agent) Order(_ context.Context, _ component.Platform, nodes []*cluster.Node, _ component.Access) ([]*cluster.Node, error) {
	return nodes, nil
}

// BeforeRestart drains the agent if its tasks would not outlive the restart, which
// is when it registers as a new one, or if the operator wants it drained.
func (agent) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	r := vars.For(name, n)
	s, problems := read(p, n, r)
	if s == nil {
		return fmt.Errorf("%s: the settings of the agent cannot be told: %s", n.Name, problems[0].Message)
	}
	_, reset := needsReset(p, n, s)
	if !reset && s.allowReset && (agent{}).Healthy(ctx, p, n, a) != nil {
		reset = true // a run that was to do it was cut off
	}
	if !reset && !s.drain {
		return nil
	}
	before := *s
	if old, there := mesos.File(p, n.Name, environmentFile); there {
		before.address = net.JoinHostPort(old["MESOS_HOSTNAME"], old["MESOS_PORT"])
	}
	known, err := find(ctx, p, n, a, &before)
	switch {
	case errors.Is(err, errUnknown): // nothing that anybody waits for runs on it
	case err != nil:
		return err
	case known.Active:
		d, _ := p.Cluster.Datacenter(n.Datacenter)
		if err := mesos.Drain(ctx, p, d, a, known.Info.ID.Value, r.Duration("mesos_drain_grace", drainGrace)); err != nil {
			return err
		}
	}
	if !reset {
		return nil
	}
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	line := "systemctl stop " + Unit + " && rm -f " + ssh.Quote(s.work+"/meta/slaves/latest")
	if _, err := host.Run(ctx, ssh.Command{Line: line, Root: true}); err != nil {
		return fmt.Errorf("have the agent of %s register anew: %w", n.Name, err)
	}
	return nil
}

// AfterRestart lets the agent have tasks again. An agent that came back as a new
// one leaves its old id behind, which is never to be waited for.
func (agent) AfterRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	s, _ := read(p, n, vars.For(name, n))
	if s == nil {
		return nil
	}
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	agents, err := mesos.Agents(ctx, p, d, a)
	if err != nil {
		return err
	}
	old := s.address
	if before, there := mesos.File(p, n.Name, environmentFile); there {
		old = net.JoinHostPort(before["MESOS_HOSTNAME"], before["MESOS_PORT"])
	}
	_, reset := needsReset(p, n, s)
	for _, agent := range agents {
		at, id := net.JoinHostPort(agent.Info.Hostname, strconv.Itoa(agent.Info.Port)), agent.Info.ID.Value
		switch {
		case at != s.address && at != old, agent.Drain == nil:
		case reset && !agent.Active:
			err = errors.Join(err, mesos.MarkGone(ctx, p, d, a, id))
		default:
			err = errors.Join(err, mesos.Reactivate(ctx, p, d, a, id))
		}
	}
	return err
}
