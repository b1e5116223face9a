package consul

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Healthy implements [component.Component]: the datacenter has a leader, all its
// servers vote and answer, and so do those of other datacenters whose machines are
// reached. Once there are tokens, they must be replicated, and the server must be in
// the catalog by its own.
func (server) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	c, err := apiOf(p, n, a)
	if err != nil {
		return err
	}
	if leader, err := c.leader(ctx); err != nil {
		return err
	} else if leader == "" {
		return errors.New("no leader of Consul is known")
	}
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	servers := d.With(cluster.ConsulServer)
	if err := votes(ctx, c, servers); err != nil {
		return err
	}
	if err := answers(ctx, c, servers); err != nil {
		return err
	}
	if err := joined(ctx, c, p, n, a); err != nil {
		return err
	}
	return registered(ctx, c, p, n)
}

// votes says which servers are no members of the quorum.
func votes(ctx context.Context, c agentAPI, servers []*cluster.Node) error {
	found, err := c.raft(ctx)
	if err != nil {
		return err
	}
	for _, n := range servers {
		i := slices.IndexFunc(found, func(s raftServer) bool { return strings.EqualFold(s.Node, n.Name) })
		switch {
		case i < 0:
			return fmt.Errorf("%s is no member of Consul's quorum in datacenter %s", n.Name, n.Datacenter)
		case !found[i].Voter:
			return fmt.Errorf("%s does not vote in Consul's quorum in datacenter %s yet", n.Name, n.Datacenter)
		}
	}
	return nil
}

// answers says which servers do not answer within the datacenter.
func answers(ctx context.Context, c agentAPI, servers []*cluster.Node) error {
	members, err := c.members(ctx, false)
	if err != nil {
		return err
	}
	for _, n := range servers {
		if m, ok := members[n.Name]; !ok || m.Status != alive {
			return fmt.Errorf("the server %s does not answer %s", n.Name, c.node)
		}
	}
	return nil
}

// joined says which servers are not in the WAN pool. Those whose machines are not
// reached do not count: they are the other datacenter's trouble.
func joined(ctx context.Context, c agentAPI, p component.Platform, n *cluster.Node, a component.Access) error {
	members, err := c.members(ctx, true)
	if err != nil {
		return err
	}
	for _, d := range p.Cluster.Datacenters {
		for _, other := range d.With(cluster.ConsulServer) {
			if _, err := a.Host(other.Name); err != nil && d.Name != n.Datacenter {
				continue
			}
			if m, ok := members[other.Name+"."+d.Name]; !ok || m.Status != alive {
				return fmt.Errorf("the server %s of datacenter %s is not in the WAN pool of %s", other.Name, d.Name, c.node)
			}
		}
	}
	return nil
}

// registered says whether tokens have arrived where there are any, and the agent is
// in the catalog by its own.
func registered(ctx context.Context, c agentAPI, p component.Platform, n *cluster.Node) error {
	own := p.Secrets.ConsulToken(secrets.AgentPurpose(n.Name))
	if n.Datacenter != p.Cluster.Primary {
		// Asked through the WAN: what the primary has may not have arrived.
		var found token
		err := c.get(ctx, "/v1/acl/token/"+url.PathEscape(own.Accessor)+"?dc="+url.QueryEscape(p.Cluster.Primary), &found)
		switch {
		case isStatus(err, 404), says(err, "ACL not found"):
			return nil // tokens come after servers
		case err != nil:
			return err
		}
		r, err := c.replication(ctx)
		if err != nil {
			return err
		}
		if err := r.works(); err != nil {
			return err
		}
	}
	ok, err := c.hasToken(ctx, own.Accessor)
	if err != nil || !ok {
		return err
	}
	return inCatalog(ctx, c, n)
}

func inCatalog(ctx context.Context, c agentAPI, n *cluster.Node) error {
	var found struct{ Node *struct{ Node string } }
	if err := c.get(ctx, "/v1/catalog/node/"+url.PathEscape(n.Name), &found); err != nil {
		return err
	}
	if found.Node == nil {
		return fmt.Errorf("%s is not in the catalog yet: its agent's token may not have reached it", n.Name)
	}
	return nil
}

// Healthy implements [component.Component]: the agent knows its servers, and is in
// the catalog by its own token.
func (client) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	c, err := apiOf(p, n, a)
	if err != nil {
		return err
	}
	if leader, err := c.leader(ctx); err != nil {
		return err
	} else if leader == "" {
		return errors.New("no leader of Consul is known")
	}
	members, err := c.members(ctx, false)
	if err != nil {
		return err
	}
	if m, ok := members[n.Name]; !ok || m.Status != alive {
		return fmt.Errorf("the agent of %s is not a member of its own datacenter", n.Name)
	}
	return inCatalog(ctx, c, n)
}

// Quorum implements [component.Quorate]: a server takes part if it knows a leader,
// and there is a quorum if any does.
func (server) Quorum(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (component.Quorum, error) {
	var q component.Quorum
	why := []string{"Consul has no leader"}
	for _, n := range d.With(cluster.ConsulServer) {
		c, err := apiOf(p, n, a)
		if err != nil {
			return component.Quorum{}, err
		}
		switch leader, err := c.leader(ctx); {
		case err != nil:
			why = append(why, err.Error())
		case leader != "":
			q.Serving = append(q.Serving, n.Name)
		}
	}
	if len(q.Serving) == 0 {
		q.Lost = strings.Join(why, "; ")
	}
	return q, ctx.Err()
}

// Order implements [component.Roller]: those that do not answer first, the leader
// last.
func (server) Order(ctx context.Context, p component.Platform, nodes []*cluster.Node, a component.Access) ([]*cluster.Node, error) {
	rank := map[*cluster.Node]int{}
	for _, n := range nodes {
		c, err := apiOf(p, n, a)
		if err != nil {
			return nil, err
		}
		switch leader, err := c.leader(ctx); {
		case err != nil || leader == "":
			rank[n] = 0
		case leader == rpcAddress(n):
			rank[n] = 2
		default:
			rank[n] = 1
		}
	}
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(x, y *cluster.Node) int { return rank[x] - rank[y] })
	return sorted, nil
}

// rpcAddress is how raft knows a server.
func rpcAddress(n *cluster.Node) string {
	return netip.AddrPortFrom(n.Address, uint16(readPorts(vars.For(ServerName, n)).Server)).String()
}

// settle is how long a quorum may take to be complete again after a restart.
const settle = 90 * time.Second

// BeforeRestart implements [component.Roller]: all servers are healthy, so that one
// may go, and it is not the leader.
func (server) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	c, err := apiOf(p, n, a)
	if err != nil {
		return err
	}
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	if len(d.With(cluster.ConsulServer)) == 1 {
		return nil
	}
	leader, err := c.leader(ctx)
	if err != nil || leader == "" {
		return nil // it takes nothing away
	}
	patience, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	if err := until(patience, func() error { return expendable(ctx, c, n) }); err != nil {
		return fmt.Errorf("a restart of Consul on %s would cost the quorum: %w", n.Name, err)
	}
	if leader != rpcAddress(n) {
		return nil
	}
	// A leader that hands over costs less than an election.
	var done struct{ Success bool }
	if err := c.call(ctx, "POST", "/v1/operator/raft/transfer-leader", nil, &done); isStatus(err, 404) || isStatus(err, 405) {
		return nil // older than that
	} else if err != nil {
		return fmt.Errorf("have %s hand over: %w", n.Name, err)
	}
	return until(patience, func() error {
		switch now, err := c.leader(ctx); {
		case err != nil:
			return err
		case now == "" || now == leader:
			return fmt.Errorf("%s has not handed over", n.Name)
		}
		return nil
	})
}

// expendable says why a server may not go: too few others are healthy, if it is.
func expendable(ctx context.Context, c agentAPI, n *cluster.Node) error {
	h, err := c.health(ctx)
	switch {
	case err != nil:
		return err
	case h.Healthy && h.FailureTolerance >= 1:
		return nil
	}
	var sick []string
	for _, s := range h.Servers {
		if !s.Healthy {
			sick = append(sick, s.Name)
		}
	}
	if len(sick) == 1 && sick[0] == n.Name {
		return nil // it is what is to be cured
	}
	return fmt.Errorf("the servers can lose %s more; not healthy: %s", strconv.Itoa(h.FailureTolerance), strings.Join(sick, ", "))
}

// AfterRestart implements [component.Roller]: it waits until the quorum is complete.
func (s server) AfterRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	if len(d.With(cluster.ConsulServer)) == 1 {
		return nil
	}
	c, err := apiOf(p, n, a)
	if err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	return until(patience, func() error { return expendable(ctx, c, n) })
}

// until tries until there is no error, or the context ends.
func until(ctx context.Context, try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}
