package marathon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/api"
)

var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9.+_-]*$`)

// info is what /v2/info says of leadership.
type info struct {
	Elected     bool   `json:"elected"`
	Leader      string `json:"leader"`
	FrameworkID string `json:"frameworkId"`
}

func ask(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) (info, error) {
	var now info
	host, err := a.Host(n.Name)
	if err != nil {
		return now, err
	}
	err = api.JSON(ctx, host, api.Request{URL: "http://" + address(n) + "/v2/info", Login: p.Secrets.Marathon(n.Datacenter)}, &now)
	if err != nil {
		return now, fmt.Errorf("%s: %w", n.Name, err)
	}
	return now, nil
}

// Healthy says whether the Marathon of the node answers and knows a leader, which
// is one of the datacenter, says so itself, and is registered with Mesos.
func (marathon) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	now, err := ask(ctx, p, n, a)
	if err != nil {
		return err
	}
	if now.Leader == "" {
		return fmt.Errorf("%s: Marathon has no leader", n.Name)
	}
	leader, err := member(p, n.Datacenter, now.Leader)
	if err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	if leader.Name != n.Name {
		// A member that does not lead may answer for itself, or pass the question on.
		if now, err = ask(ctx, p, leader, a); err != nil {
			return fmt.Errorf("%s: its leader does not answer: %w", n.Name, err)
		}
	}
	switch {
	case !now.Elected:
		return fmt.Errorf("%s: Marathon's leader is %s, which does not say so itself", n.Name, leader.Name)
	case now.FrameworkID == "":
		return fmt.Errorf("%s: Marathon is not registered with Mesos", n.Name)
	}
	return nil
}

// Quorum is whether any Marathon serves.
func (m marathon) Quorum(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (component.Quorum, error) {
	var q component.Quorum
	why := []string{"no Marathon serves"}
	for _, n := range d.With(cluster.Marathon) {
		if _, err := a.Host(n.Name); err != nil {
			return component.Quorum{}, err
		}
		if err := m.Healthy(ctx, p, n, a); err != nil {
			why = append(why, err.Error())
			continue
		}
		q.Serving = append(q.Serving, n.Name)
	}
	if len(q.Serving) == 0 {
		q.Lost = strings.Join(why, "; ")
	}
	return q, ctx.Err()
}

// member is the node that a leader's host:port names.
func member(p component.Platform, datacenter, leader string) (*cluster.Node, error) {
	d, _ := p.Cluster.Datacenter(datacenter)
	host, _, err := net.SplitHostPort(leader)
	if err != nil {
		host = leader
	}
	for _, n := range d.With(cluster.Marathon) {
		if n.Address.String() == host || n.Name == host {
			return n, nil
		}
	}
	return nil, fmt.Errorf("the leader of Marathon is %s, which is no Marathon of %s in the inventory", leader, datacenter)
}

// leads is the node that leads, by the first member that says; nil if none does.
func leads(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (*cluster.Node, error) {
	var why []error
	for _, n := range d.With(cluster.Marathon) {
		now, err := ask(ctx, p, n, a)
		switch {
		case err != nil:
			why = append(why, err)
		case now.Leader != "":
			return member(p, d.Name, now.Leader)
		}
	}
	return nil, errors.Join(why...)
}

// Order puts the leader last.
func (marathon) Order(ctx context.Context, p component.Platform, nodes []*cluster.Node, a component.Access) ([]*cluster.Node, error) {
	if len(nodes) == 0 {
		return nil, nil
	}
	d, _ := p.Cluster.Datacenter(nodes[0].Datacenter)
	leader, _ := leads(ctx, p, d, a) // nobody to protect where nobody answers
	var standbys, last []*cluster.Node
	for _, n := range nodes {
		if leader != nil && n.Name == leader.Name {
			last = append(last, n)
		} else {
			standbys = append(standbys, n)
		}
	}
	return append(standbys, last...), nil
}

// BeforeRestart has the leader hand over to another member, if there is one that
// answers, and waits until it has; and refuses to take the last one that serves.
func (m marathon) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	members := d.With(cluster.Marathon)
	if len(members) == 1 || m.Healthy(ctx, p, n, a) != nil {
		return nil
	}
	others := 0
	var why []error
	for _, other := range members {
		if other.Name == n.Name {
			continue
		}
		if err := m.Healthy(ctx, p, other, a); err != nil {
			why = append(why, err)
		} else {
			others++
		}
	}
	if others == 0 {
		return fmt.Errorf("no other Marathon of %s serves, so %s is not restarted now: %w", d.Name, n.Name, errors.Join(why...))
	}
	leader, err := leads(ctx, p, d, a)
	if err != nil || leader == nil || leader.Name != n.Name {
		return err
	}
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	abdicate := api.Request{Method: http.MethodDelete, URL: "http://" + address(n) + "/v2/leader", Login: p.Secrets.Marathon(n.Datacenter)}
	if err := api.JSON(ctx, host, abdicate, nil); err != nil {
		return fmt.Errorf("%s: have Marathon's leader hand over: %w", n.Name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		// Marathon ends itself when it gives up the lead; if it is the leader again
		// when it is back, a restart costs what it would have cost anyway.
		leader, err := leads(ctx, p, d, a)
		if err == nil && leader != nil && leader.Name != n.Name {
			return nil
		}
		select {
		case <-ctx.Done():
			if leader != nil {
				return nil
			}
			return fmt.Errorf("wait for another leader of Marathon in %s: %w", d.Name, errors.Join(err, ctx.Err()))
		case <-time.After(time.Second):
		}
	}
}

// patience is how long an election may take.
const patience = 90 * time.Second

// AfterRestart has nothing to undo.
func (marathon) AfterRestart(context.Context, component.Platform, *cluster.Node, component.Access) error {
	return nil
}
