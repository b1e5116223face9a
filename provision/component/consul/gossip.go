package consul

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
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
// use: through the primary datacenter, for all of them. Only its own pools are looked
// at, so that a datacenter that is away does not keep it from anything.
func (c configurator) gossip(ctx context.Context, through agentAPI) ([]component.Action, error) {
	rings, err := through.rings(ctx, "?local-only=true")
	if err != nil {
		return nil, err
	}
	key := c.p.Secrets.GossipKey().Reveal()
	if !slices.ContainsFunc(rings, func(r ring) bool { return r.uses(key) != nil || len(r.Keys) > 1 }) {
		return nil, nil
	}
	return []component.Action{c.action("gossip/key", "change the gossip key of all datacenters", func(ctx context.Context, through agentAPI) error {
		return rotate(ctx, c.p, through, key)
	})}, nil
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

// rotate has all nodes know a key, then use it, then forget all others. Each step is
// proved before the next: a node that misses one is cut off. Keys are forgotten only
// when every node of the platform answers, as those that do not would come back with
// an old one.
func rotate(ctx context.Context, p component.Platform, through agentAPI, key string) error {
	step := func(method string, prove func(ring) error) error {
		if err := through.call(ctx, method, "/v1/operator/keyring", gossipKey{key}, nil); err != nil {
			return err
		}
		rings, err := through.rings(ctx, "")
		if err != nil {
			return err
		}
		for _, r := range rings {
			if err := prove(r); err != nil {
				return err
			}
		}
		return nil
	}
	if err := step(http.MethodPost, func(r ring) error { return r.has(key) }); err != nil {
		return err
	}
	if err := step(http.MethodPut, func(r ring) error { return r.uses(key) }); err != nil {
		return err
	}
	rings, err := through.rings(ctx, "")
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, r := range rings {
		for other := range r.Keys {
			old[other] = other != key
		}
		if want := expected(p, r); r.NumNodes < want {
			return fmt.Errorf("%d of %d nodes of %s answer: the old gossip key stays until all do", r.NumNodes, want, r.name())
		}
	}
	for other, remove := range old {
		if !remove {
			continue
		}
		if err := through.call(ctx, http.MethodDelete, "/v1/operator/keyring", gossipKey{other}, nil); err != nil {
			return err
		}
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
