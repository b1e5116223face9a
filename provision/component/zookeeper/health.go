package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
)

// status is what a server says of itself.
type status struct {
	state     string // "leader", "follower", "standalone", "observer"; "" if it does not serve
	followers int    // of a leader: how many are as far as it is
	quorum    int    // of a leader: how many vote
}

// errNotServing is a server that runs and belongs to no quorum.
var errNotServing = errors.New("it runs and has no quorum")

// most that a server says.
const mostStatus = 1 << 20

// ask asks a server by a word of four letters, from a machine.
func ask(ctx context.Context, host component.Host, address, word string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := host.DialContext(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	// Connections that go through SSH know no deadlines.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(io.LimitReader(c, mostStatus))
	if ctx.Err() != nil {
		return "", fmt.Errorf("ask %s for %s: %w", address, word, ctx.Err())
	}
	return string(answer), err
}

// statusOf asks a server what it is, from a machine.
func statusOf(ctx context.Context, host component.Host, address string) (status, error) {
	answer, err := ask(ctx, host, address, "mntr")
	if err != nil {
		return status{}, fmt.Errorf("ask ZooKeeper at %s: %w", address, err)
	}
	return parseStatus(answer)
}

func parseStatus(answer string) (status, error) {
	var s status
	for line := range strings.SplitSeq(answer, "\n") {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
		switch key {
		case "zk_server_state":
			s.state = value
		case "zk_synced_followers":
			s.followers = number(value)
		case "zk_quorum_size":
			s.quorum = number(value)
		}
	}
	switch {
	case strings.Contains(answer, "not currently serving requests"):
		return status{}, errNotServing
	case strings.Contains(answer, "not in the whitelist"):
		return status{}, errors.New("it does not answer mntr: 4lw.commands.whitelist lacks it")
	case s.state == "":
		return status{}, fmt.Errorf("it answers %q to mntr", shorten(answer))
	}
	return s, nil
}

func shorten(s string) string {
	if len(s) > 100 {
		s = s[:100] + "…"
	}
	return s
}

// number is 0 for what is none; mntr prints some numbers as 2.0.
func number(s string) int {
	f, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return 0
	}
	return int(f)
}

// ensemble is what the servers of a datacenter say, as far as one machine reaches
// them.
func ensemble(ctx context.Context, host component.Host, nodes []*cluster.Node, p component.Platform) map[*cluster.Node]status {
	all := map[*cluster.Node]status{}
	for _, n := range nodes {
		s, _ := read(p, n)
		address := s.remote()
		if n.Name == host.Name() {
			address = s.dial()
		}
		if st, err := statusOf(ctx, host, address); err == nil {
			all[n] = st
		}
	}
	return all
}

// Healthy implements [component.Component]: the server is part of a quorum that has
// all servers of the datacenter, by what their leader says.
func (zookeeper) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	s, _ := read(p, n)
	own, err := statusOf(ctx, host, s.dial())
	if err != nil {
		return err
	}
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	nodes := d.With(cluster.ZooKeeper)
	if len(nodes) == 1 {
		if own.state != "standalone" && own.state != "leader" {
			return fmt.Errorf("it is a %s, and should be the only server", own.state)
		}
		return nil
	}
	if own.state == "standalone" {
		return fmt.Errorf("it runs for itself, and should be one of %d servers: its zoo.cfg does not have the others", len(nodes))
	}
	var leaders []string
	for member, st := range ensemble(ctx, host, nodes, p) {
		if st.state != "leader" {
			continue
		}
		leaders = append(leaders, member.Name)
		if st.followers != len(nodes)-1 {
			return fmt.Errorf("the leader %s has %d followers, and should have %d", member.Name, st.followers, len(nodes)-1)
		}
	}
	switch len(leaders) {
	case 0:
		return errors.New("no leader is seen")
	case 1:
		return nil
	}
	slices.Sort(leaders)
	return fmt.Errorf("there are %d leaders, %s: the machines do not have the same list of servers", len(leaders), strings.Join(leaders, " and "))
}

// Quorum implements [component.Quorate]: there is one where a server leads, or runs
// for itself. Each server is asked on its own machine.
func (zookeeper) Quorum(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (component.Quorum, error) {
	var q component.Quorum
	var why []string
	leads := false
	for _, n := range d.With(cluster.ZooKeeper) {
		host, err := a.Host(n.Name)
		if err != nil {
			return component.Quorum{}, err
		}
		s, _ := read(p, n)
		st, err := statusOf(ctx, host, s.dial())
		if err != nil {
			why = append(why, fmt.Sprintf("%s: %v", n.Name, err))
			continue
		}
		q.Serving = append(q.Serving, n.Name)
		leads = leads || st.state == "leader" || st.state == "standalone"
	}
	if !leads {
		q.Lost = strings.Join(append([]string{"no ZooKeeper leads"}, why...), "; ")
	}
	return q, ctx.Err()
}

// Order implements [component.Roller]: those that do not serve first, then
// followers, the leader last.
func (zookeeper) Order(ctx context.Context, p component.Platform, nodes []*cluster.Node, a component.Access) ([]*cluster.Node, error) {
	rank := map[*cluster.Node]int{}
	for _, n := range nodes {
		host, err := a.Host(n.Name)
		if err != nil {
			return nil, err
		}
		s, _ := read(p, n)
		switch st, err := statusOf(ctx, host, s.dial()); {
		case err != nil:
			rank[n] = 0
		case st.state == "leader":
			rank[n] = 2
		default:
			rank[n] = 1
		}
	}
	sorted := slices.Clone(nodes)
	slices.SortStableFunc(sorted, func(x, y *cluster.Node) int { return rank[x] - rank[y] })
	return sorted, nil
}

// BeforeRestart implements [component.Roller]: what remains must be a quorum.
func (zookeeper) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	nodes := d.With(cluster.ZooKeeper)
	seen := ensemble(ctx, host, nodes, p)
	if _, serves := seen[n]; !serves || len(nodes) == 1 {
		return nil // it takes nothing away, or there is nobody else
	}
	others, leader := len(seen)-1, false
	for _, st := range seen {
		leader = leader || st.state == "leader"
	}
	// A server that runs for itself grows into an ensemble by being restarted.
	if seen[n].state == "standalone" {
		return nil
	}
	if need := d.Quorum(cluster.ZooKeeper); !leader || others < need {
		return fmt.Errorf("without %s %d of %d servers would serve, and %d are needed: see to the others first", n.Name, others, len(nodes), need)
	}
	return nil
}

// AfterRestart implements [component.Roller].
func (zookeeper) AfterRestart(context.Context, component.Platform, *cluster.Node, component.Access) error {
	return nil
}
