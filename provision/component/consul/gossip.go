package consul

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// ring is the gossip keys of one pool: a datacenter's, or that of all servers.
type ring struct {
	WAN         bool
	Datacenter  string
	NumNodes    int
	Keys        map[string]int
	PrimaryKeys map[string]int
}

// gossip is the change of the gossip key to the one of the bundle, if another is in
// use or known: through the primary datacenter, for all of them. Only its own pools
// are looked at, so that a datacenter that is away does not keep it from anything.
// A change that was begun is left to [ShareGossipKey].
func (c configurator) gossip(ctx context.Context, through agentAPI) ([]component.Action, error) {
	if !c.p.Secrets.NextGossipKey().IsEmpty() {
		return nil, nil
	}
	var rings []ring
	err := againIf(ctx, isLost, func() (err error) {
		rings, err = through.rings(ctx, "?local-only=true")
		return err
	})
	if err != nil {
		return nil, err
	}
	key := c.p.Secrets.GossipKey().Reveal()
	title := ""
	for _, r := range rings {
		switch {
		case r.uses(key) != nil:
			title = "change the gossip key of all datacenters"
		case len(r.Keys) > 1 && title == "":
			title = "have all datacenters forget old gossip keys"
		}
	}
	if title == "" {
		return nil, nil
	}
	return []component.Action{c.action("gossip/key", title, func(ctx context.Context, through agentAPI) error {
		if err := share(ctx, c.p, c.a, through, key); err != nil {
			return err
		}
		return forget(ctx, c.p, c.a, through, key)
	})}, nil
}

// ShareGossipKey has all agents of all datacenters know a key, and then use it. Old
// keys stay known: they are forgotten when the machines start with the new one, by the
// action of the component. It may be done again after it was cut off.
func ShareGossipKey(ctx context.Context, p component.Platform, a component.Access, key redact.Text) error {
	d, ok := p.Cluster.Datacenter(p.Cluster.Primary)
	if !ok {
		return fmt.Errorf("there is no datacenter %s", p.Cluster.Primary)
	}
	c := configurator{p: p, d: d, a: a}
	through, err := c.connect(ctx)
	if err != nil {
		return err
	}
	return share(ctx, p, a, through, key.Reveal())
}

func (c agentAPI) rings(ctx context.Context, query string) ([]ring, error) {
	var rings []ring
	if err := c.get(ctx, "/v1/operator/keyring"+query, &rings); err != nil {
		return nil, fmt.Errorf("look at the gossip keys: %w", err)
	}
	return rings, nil
}

func (r ring) name() string {
	if r.WAN {
		return "the WAN pool"
	}
	return "datacenter " + r.Datacenter
}

func (r ring) has(key string) error {
	if r.Keys[key] < r.NumNodes {
		return fmt.Errorf("%d of %d nodes of %s have the new gossip key", r.Keys[key], r.NumNodes, r.name())
	}
	return nil
}

func (r ring) uses(key string) error {
	if r.PrimaryKeys[key] < r.NumNodes {
		return fmt.Errorf("%d of %d nodes of %s use the new gossip key", r.PrimaryKeys[key], r.NumNodes, r.name())
	}
	return nil
}

type gossipKey struct{ Key string }

// share has all nodes know a key, then use it. Each step is proved before the next,
// and neither is begun unless every node of the platform answers: one that misses a
// step cannot read what the others say when it is back.
func share(ctx context.Context, p component.Platform, a component.Access, through agentAPI, key string) error {
	if err := present(ctx, p, a); err != nil {
		return err
	}
	if err := change(ctx, p, through, http.MethodPost, key, ring.has); err != nil {
		return err
	}
	return change(ctx, p, through, http.MethodPut, key, ring.uses)
}

// forget has all nodes forget all keys but one, which all must use.
func forget(ctx context.Context, p component.Platform, a component.Access, through agentAPI, key string) error {
	if err := present(ctx, p, a); err != nil {
		return fmt.Errorf("%w; until then old gossip keys stay", err)
	}
	var rings []ring
	err := againIf(ctx, isLost, func() (err error) {
		rings, err = through.rings(ctx, "")
		return err
	})
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, r := range rings {
		if err := r.uses(key); err != nil {
			return err
		}
		for other := range r.Keys {
			old[other] = other != key
		}
	}
	for other, remove := range old {
		if !remove {
			continue
		}
		err := againIf(ctx, isLost, func() error {
			return through.call(ctx, http.MethodDelete, "/v1/operator/keyring", gossipKey{other}, nil)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// keyringTries and keyringPause are for nodes whose answer is not there in time: Consul
// asks them by gossip, which loses some, and more in the minute after a node has come back.
// All that is asked of them can be asked again.
const (
	keyringTries = 5
	keyringPause = 5 * time.Second
)

// againIf asks until it works, for as long as the error is one of those, and gives the
// last error.
func againIf(ctx context.Context, worth func(error) bool, ask func() error) error {
	err := ask()
	for range keyringTries - 1 {
		if err == nil || !worth(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(keyringPause):
		}
		err = ask()
	}
	return err
}

// isLost says whether Consul has not heard from all nodes, as serf's keyManager puts it
// when answers are missing: not what it says of nodes that refuse.
func isLost(err error) bool { return says(err, "nodes reported success") }

// change asks all nodes for one step, and proves that all have done it.
func change(ctx context.Context, p component.Platform, through agentAPI, method, key string, prove func(ring, string) error) error {
	whatever := func(error) bool { return ctx.Err() == nil }
	return againIf(ctx, whatever, func() error { return changeOnce(ctx, p, through, method, key, prove) })
}

func changeOnce(ctx context.Context, p component.Platform, through agentAPI, method, key string, prove func(ring, string) error) error {
	if err := through.call(ctx, method, "/v1/operator/keyring", gossipKey{key}, nil); err != nil {
		return err
	}
	rings, err := through.rings(ctx, "")
	if err != nil {
		return err
	}
	pools := map[string]bool{}
	for _, r := range rings {
		pools[r.name()] = true
		if want := expected(p, r); r.NumNodes < want {
			return fmt.Errorf("%d of %d nodes of %s answer", r.NumNodes, want, r.name())
		}
		if err := prove(r, key); err != nil {
			return err
		}
	}
	for _, d := range p.Cluster.Datacenters {
		if name := (ring{Datacenter: d.Name}).name(); len(d.With(cluster.ConsulServer)) > 0 && !pools[name] {
			return fmt.Errorf("%s does not answer", name)
		}
	}
	return nil
}

// present says which nodes of the platform do not answer in their own datacenter.
func present(ctx context.Context, p component.Platform, a component.Access) error {
	var away []string
	for _, d := range p.Cluster.Datacenters {
		if len(d.With(cluster.ConsulServer)) == 0 {
			continue
		}
		c := configurator{p: p, d: d, a: a}
		through, err := c.connect(ctx)
		if err != nil {
			return fmt.Errorf("all agents of the platform must answer: %w", err)
		}
		members, err := through.members(ctx, false)
		if err != nil {
			return err
		}
		for _, n := range d.Nodes {
			if !n.Has(cluster.ConsulServer) && !n.Has(cluster.ConsulClient) {
				continue
			}
			if m, ok := members[n.Name]; !ok || m.Status != alive {
				away = append(away, n.Name)
			}
		}
	}
	if len(away) > 0 {
		return fmt.Errorf("all agents of the platform must answer, and these do not: %s; start them, or take them out of the inventory", strings.Join(away, ", "))
	}
	return nil
}

// expected is how many nodes of the platform are in a pool.
func expected(p component.Platform, r ring) int {
	n := 0
	for _, d := range p.Cluster.Datacenters {
		if !r.WAN && d.Name != r.Datacenter {
			continue
		}
		n += len(d.With(cluster.ConsulServer))
		if !r.WAN {
			n += len(d.With(cluster.ConsulClient))
		}
	}
	return n
}
