package edge

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/api"
)

// status is the part of mi-lb's /v1/status that says whether it serves.
type status struct {
	Ready   bool   `json:"ready"`
	Waiting string `json:"waiting"`
	HAProxy struct {
		Running bool `json:"running"`
	} `json:"haproxy"`
	Sources []struct {
		Source struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"source"`
		Status    string `json:"status"`
		LastError string `json:"lastError"`
	} `json:"sources"`
}

// Healthy says whether mi-lb is ready, HAProxy answers on the first HTTP address,
// and every source of the node's own datacenter is current. Sources of other
// datacenters may be out of reach: the edge serves without them.
func (c *edge) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	s, problems := c.settings(p, n)
	if s == nil {
		return fmt.Errorf("%s: the configuration of the edge cannot be told: %s", n.Name, problems[0].Message)
	}
	var now status
	if err := api.JSON(ctx, host, api.Request{URL: "http://" + s.adminAddress() + "/v1/status"}, &now); err != nil {
		return fmt.Errorf("%s: ask mi-lb how it is: %w", n.Name, err)
	}
	switch {
	case !now.Ready:
		return fmt.Errorf("%s: mi-lb is not ready: waiting for %s", n.Name, now.Waiting)
	case !now.HAProxy.Running:
		return fmt.Errorf("%s: HAProxy does not run", n.Name)
	}
	if err := now.currentIn(p, n.Datacenter); err != nil {
		return fmt.Errorf("%s: %w", n.Name, err)
	}
	if len(s.http) == 0 {
		return nil
	}
	// Whatever it answers for a host that nobody has: HAProxy takes requests.
	if _, _, err := api.Do(ctx, host, api.Request{URL: "http://" + s.httpAddress() + "/", Host: "health.invalid"}); err != nil {
		return fmt.Errorf("%s: HAProxy takes no request on %s: %w", n.Name, s.httpAddress(), err)
	}
	return nil
}

// currentIn says what of a datacenter the edge does not see.
func (s status) currentIn(p component.Platform, datacenter string) error {
	wanted := map[string]bool{"consul/" + datacenter: true}
	if d, ok := p.Cluster.Datacenter(datacenter); ok && len(d.With(cluster.Marathon)) > 0 {
		wanted["marathon/"+datacenter] = true
	}
	var missing []error
	for _, source := range s.Sources {
		name := source.Source.Kind + "/" + source.Source.Name
		if !wanted[name] {
			continue
		}
		delete(wanted, name)
		if source.Status != "current" {
			missing = append(missing, fmt.Errorf("its source %s is %s: %s", name, source.Status, source.LastError))
		}
	}
	for name := range wanted {
		missing = append(missing, fmt.Errorf("it does not watch %s yet", name))
	}
	return errors.Join(missing...)
}

// Order leaves the order as it is: edges have no leader.
func (c *edge) Order(_ context.Context, _ component.Platform, nodes []*cluster.Node, _ component.Access) ([]*cluster.Node, error) {
	return nodes, nil
}

// BeforeRestart says whether another edge of the datacenter serves, so that there
// is always one; an edge that is the only one is restarted all the same, as
// HAProxy serves on while mi-lb is restarted.
func (c *edge) BeforeRestart(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, ok := p.Cluster.Datacenter(n.Datacenter)
	if !ok {
		return nil
	}
	if c.Healthy(ctx, p, n, a) != nil {
		return nil // nothing is lost by restarting what does not serve
	}
	var why []string
	for _, other := range d.With(cluster.Edge) {
		if other.Name == n.Name {
			continue
		}
		err := c.Healthy(ctx, p, other, a)
		if err == nil {
			return nil
		}
		why = append(why, err.Error())
	}
	if len(why) == 0 {
		return nil
	}
	return fmt.Errorf("no other edge of %s serves, so %s is not restarted now: %s", n.Datacenter, n.Name, strings.Join(why, "; "))
}

// AfterRestart has nothing to undo.
func (c *edge) AfterRestart(context.Context, component.Platform, *cluster.Node, component.Access) error {
	return nil
}
