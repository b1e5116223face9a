package apply

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/survey"
)

// Check is whether a component works on a machine, or, without a node, whether its
// own state in a datacenter is as it should be.
type Check struct {
	Component  string `json:"component"`
	Datacenter string `json:"datacenter"`
	Node       string `json:"node,omitempty"`
	OK         bool   `json:"ok"`
	// Message says what is missing.
	Message string `json:"message,omitempty"`
}

// Verify asks all components on all machines of a scope whether they work, until
// they do or patience ends; 0 asks once. It changes nothing.
func Verify(ctx context.Context, s *survey.Survey, f *fleet.Fleet, components []component.Component, scope survey.Scope, forks int, patience time.Duration) []Check {
	p := s.Platform()
	var mu sync.Mutex
	var all []Check
	add := func(c Check) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, c)
	}
	until := time.Now().Add(patience)
	var g errgroup.Group
	g.SetLimit(max(forks, 1))
	for _, c := range components {
		for _, n := range p.Cluster.Nodes() {
			if !c.On(n) || !scope.Has(n.Name, c.Name()) {
				continue
			}
			g.Go(func() error {
				check := Check{Component: c.Name(), Datacenter: n.Datacenter, Node: n.Name}
				err := s.Unreachable()[n.Name]
				if err == nil {
					err = untilGood(ctx, until, func(ctx context.Context) error { return c.Healthy(ctx, p, n, f) })
				}
				check.set(n.Name, err)
				add(check)
				return nil
			})
		}
		configurer, ok := c.(component.Configurer)
		if !ok {
			continue
		}
		for _, d := range p.Cluster.Datacenters {
			if !slices.ContainsFunc(d.Nodes, func(n *cluster.Node) bool { return c.On(n) && scope.Has(n.Name, c.Name()) }) {
				continue
			}
			g.Go(func() error {
				check := Check{Component: c.Name(), Datacenter: d.Name}
				check.set("", untilGood(ctx, until, func(ctx context.Context) error {
					actions, err := configurer.Pending(ctx, p, d, f)
					if err == nil && len(actions) > 0 {
						err = fmt.Errorf("its state lacks: %s", titles(actions))
					}
					return err
				}))
				add(check)
				return nil
			})
		}
	}
	_ = g.Wait() // none of them fails
	rank := func(c Check) int {
		return slices.IndexFunc(components, func(x component.Component) bool { return x.Name() == c.Component })
	}
	slices.SortStableFunc(all, func(a, b Check) int {
		if a.Component != b.Component {
			return rank(a) - rank(b)
		}
		return strings.Compare(a.Datacenter+"/"+a.Node, b.Datacenter+"/"+b.Node)
	})
	return all
}

func (c *Check) set(node string, err error) {
	if c.OK = err == nil; err != nil {
		c.Message = strings.TrimPrefix(err.Error(), node+": ")
	}
}

func titles(actions []component.Action) string {
	var all []string
	for _, a := range actions {
		all = append(all, a.Title)
	}
	return strings.Join(all, ", ")
}

// untilGood asks again until there is no error or the time has come; at least once.
func untilGood(ctx context.Context, until time.Time, ask func(context.Context) error) error {
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		try, cancel := context.WithTimeout(ctx, onceHealthy)
		err := ask(try)
		cancel()
		if err == nil || time.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
