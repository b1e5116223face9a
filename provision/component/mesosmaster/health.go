package mesosmaster

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/mesos"
)

// Healthy says whether the master's replicated log has recovered, whether it sees
// as many masters as its quorum is for, and whether exactly one of the datacenter is
// elected.
func (master) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	if look(p, d).waits(n) {
		return nil // it is to start in the next run; see Check
	}
	m, err := mesos.MasterMetrics(ctx, p, n, a)
	if err != nil {
		return err
	}
	if err := recovered(d, n, m); err != nil {
		return err
	}
	_, err = mesos.Leader(ctx, p, d, a)
	return err
}

func recovered(d *cluster.Datacenter, n *cluster.Node, m mesos.Metrics) error {
	quorum := d.Quorum(cluster.MesosMaster)
	size, known := m["registrar/log/ensemble_size"]
	switch {
	case m["registrar/log/recovered"] != 1:
		return fmt.Errorf("%s: its replicated log has not recovered; it needs %d masters of %s", n.Name, quorum, d.Name)
	case !known || int(size) < quorum:
		return fmt.Errorf("%s: it sees %d masters, and the quorum is %d", n.Name, int(size), quorum)
	}
	return tooMany(d, size)
}

// Quorum is whether one is elected and as many have recovered their replicated log
// as those that run need: the registry cannot be written without.
func (master) Quorum(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (component.Quorum, error) {
	var q component.Quorum
	var why []string
	elected := false
	for _, n := range d.With(cluster.MesosMaster) {
		if _, err := a.Host(n.Name); err != nil {
			return component.Quorum{}, err
		}
		m, err := mesos.MasterMetrics(ctx, p, n, a)
		switch {
		case err != nil:
			why = append(why, err.Error())
		case m["registrar/log/recovered"] != 1:
			why = append(why, n.Name+": its replicated log has not recovered")
		default:
			q.Serving = append(q.Serving, n.Name)
			elected = elected || m["master/elected"] == 1
		}
	}
	switch quorum := look(p, d).needed(); {
	case len(q.Serving) < quorum:
		q.Lost = strings.Join(append([]string{fmt.Sprintf("%d Mesos masters work, and the quorum is %d", len(q.Serving), quorum)}, why...), "; ")
	case !elected:
		q.Lost = strings.Join(append([]string{mesos.ErrNoLeader.Error()}, why...), "; ")
	}
	return q, ctx.Err()
}

// Order puts the leader last.
func (master) Order(ctx context.Context, p component.Platform, nodes []*cluster.Node, a component.Access) ([]*cluster.Node, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	d, _ := p.Cluster.Datacenter(nodes[0].Datacenter)
	leader, err := mesos.Leader(ctx, p, d, a)
	if errors.Is(err, mesos.ErrNoLeader) {
		return nodes, nil // nothing to protect
	}
	if err != nil {
		return nil, fmt.Errorf("find the leader of the masters of %s: %w", d.Name, err)
	}
	var followers, last []*cluster.Node
	for _, n := range nodes {
		if n.Name == leader.Name {
			last = append(last, n)
		} else {
			followers = append(followers, n)
		}
	}
	return append(followers, last...), nil
}

// BeforeRestart says whether the registry would be without its quorum: whether the
// other masters have recovered. Masters that run but should not are in the way of
// any restart. A datacenter without a working quorum has nothing to lose.
func (master) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	masters := d.With(cluster.MesosMaster)
	c := look(p, d)
	works, size, self := 0, 0.0, false
	var why []error
	for _, other := range masters {
		m, err := mesos.MasterMetrics(ctx, p, other, a)
		switch {
		case err != nil:
			why = append(why, err)
		case m["registrar/log/recovered"] != 1:
			why = append(why, fmt.Errorf("%s: its replicated log has not recovered", other.Name))
		default:
			works++
			self = self || other.Name == n.Name
			size = max(size, m["registrar/log/ensemble_size"])
		}
	}
	if err := tooMany(d, size); err != nil && works > 0 {
		return err
	}
	quorum := c.needed()
	switch {
	case works < quorum || !self: // nothing to lose
		return nil
	case works-1 >= quorum:
		return nil
	case len(masters)-1 < quorum: // one or two masters: it cannot be helped
		return nil
	}
	return fmt.Errorf("%s: a restart of %s would leave %d of the masters, and the quorum is %d: %w", d.Name, n.Name, works-1, quorum, errors.Join(why...))
}

// AfterRestart has nothing to undo.
func (master) AfterRestart(context.Context, component.Platform, *cluster.Node, component.Access) error {
	return nil
}
