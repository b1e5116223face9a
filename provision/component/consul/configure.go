package consul

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// policies are what each purpose needs, and nothing else.
var policies = []policy{
	{
		Name: "mi-lb-registrator", Description: "mi-lb: registers containers",
		Rules: "service_prefix \"\" {\n  policy = \"write\"\n}\n",
	},
	{
		Name: "mi-lb-edge", Description: "mi-lb: reads the catalogs of all datacenters",
		Rules: "agent_prefix \"\" {\n  policy = \"read\"\n}\nnode_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n",
	},
	{
		Name: "mi-lb-dns", Description: "mi-lb: answers DNS",
		Rules: "node_prefix \"\" {\n  policy = \"read\"\n}\nquery_prefix \"\" {\n  policy = \"read\"\n}\nservice_prefix \"\" {\n  policy = \"read\"\n}\n",
	},
	{
		Name: "mi-lb-replication", Description: "mi-lb: takes ACLs to other datacenters",
		Rules: "acl = \"write\"\noperator = \"write\"\nservice_prefix \"\" {\n  policy = \"read\"\n  intentions = \"read\"\n}\n",
	},
}

const agentDescription = "mi-lb: agent of "

// wantedToken is a token that should be there, and what it is called here.
type wantedToken struct {
	name string
	token
}

// wantedTokens are in the order in which they are of use: replication first.
func wantedTokens(p component.Platform) []wantedToken {
	var all []wantedToken
	for _, x := range []struct{ purpose, description string }{
		{secrets.ReplicationPurpose, "takes ACLs to other datacenters"},
		{secrets.DNSPurpose, "answers DNS"},
		{secrets.RegistratorPurpose, "registers containers"},
		{secrets.EdgePurpose, "reads the catalogs of all datacenters"},
	} {
		t := p.Secrets.ConsulToken(x.purpose)
		all = append(all, wantedToken{x.purpose, token{
			AccessorID: t.Accessor, SecretID: t.Secret.Reveal(), Description: "mi-lb: " + x.description, Policies: []link{{"mi-lb-" + x.purpose}},
		}})
	}
	for _, n := range p.Cluster.Nodes() {
		if !n.Has(cluster.ConsulServer) && !n.Has(cluster.ConsulClient) {
			continue
		}
		t := p.Secrets.ConsulToken(secrets.AgentPurpose(n.Name))
		all = append(all, wantedToken{"agent/" + n.Name, token{
			AccessorID: t.Accessor, SecretID: t.Secret.Reveal(), Description: agentDescription + n.Name,
			NodeIdentities: []nodeIdentity{{n.Name, n.Datacenter}},
		}})
	}
	return all
}

// configurator makes actions for one datacenter.
type configurator struct {
	p component.Platform
	d *cluster.Datacenter
	a component.Access
	// node is where the actions say that they go through.
	node string
}

func (c configurator) action(id, title string, do func(context.Context, agentAPI) error) component.Action {
	return component.Action{ID: id, Title: title, Datacenter: c.d.Name, Node: c.node, Do: func(ctx context.Context) error {
		through, err := c.connect(ctx)
		if err != nil {
			return err
		}
		if err := do(ctx, through); err != nil {
			return fmt.Errorf("%s in datacenter %s: %w", title, c.d.Name, err)
		}
		return nil
	}}
}

// connect is the API of the first server that has a leader.
func (c *configurator) connect(ctx context.Context) (agentAPI, error) {
	var reasons []error
	reached := false
	for _, n := range c.d.With(cluster.ConsulServer) {
		through, err := apiOf(c.p, n, c.a)
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		reached = true
		leader, err := through.leader(ctx)
		if err == nil && leader != "" {
			c.node = n.Name
			return through, nil
		}
		if err == nil {
			err = fmt.Errorf("%s knows no leader", n.Name)
		}
		reasons = append(reasons, err)
	}
	if reached {
		reasons = append([]error{component.ErrNotRunning}, reasons...)
	}
	return agentAPI{}, fmt.Errorf("reach Consul in datacenter %s: %w", c.d.Name, errors.Join(reasons...))
}

// Expected implements [component.Configurer].
func (server) Expected(p component.Platform, d *cluster.Datacenter) []component.Action {
	c := configurator{p: p, d: d}
	if servers := d.With(cluster.ConsulServer); len(servers) > 0 {
		c.node = servers[0].Name
	}
	if d.Name != p.Cluster.Primary {
		return []component.Action{c.arrival()}
	}
	var all []component.Action
	for _, w := range policies {
		all = append(all, c.makePolicy(w, nil))
	}
	for _, w := range wantedTokens(p) {
		all = append(all, c.makeToken(w, false))
	}
	return all
}

// Pending implements [component.Configurer]. Policies and tokens are the primary
// datacenter's; the others wait until they have arrived.
func (server) Pending(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) ([]component.Action, error) {
	if len(d.With(cluster.ConsulServer)) == 0 {
		return nil, nil
	}
	c := configurator{p: p, d: d, a: a}
	through, err := c.connect(ctx)
	if err != nil {
		return nil, err
	}
	if d.Name != p.Cluster.Primary {
		if err := arrived(ctx, through, p, d); err != nil {
			return []component.Action{c.arrival()}, nil
		}
		return nil, nil
	}
	var all []component.Action
	for _, w := range policies {
		found, err := through.policyNamed(ctx, w.Name)
		if err != nil {
			return nil, fmt.Errorf("look at the policy %s: %w", w.Name, notReady(err))
		}
		if found == nil || found.Rules != w.Rules || found.Description != w.Description {
			all = append(all, c.makePolicy(w, found))
		}
	}
	tokens, err := through.tokens(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at Consul's tokens: %w", notReady(err))
	}
	wanted := map[string]bool{}
	for _, w := range wantedTokens(p) {
		wanted[w.AccessorID] = true
		found, ok := tokens[w.AccessorID]
		if !ok || !sameToken(found, w.token) {
			all = append(all, c.makeToken(w, ok && found.SecretID != w.SecretID))
		}
	}
	for _, accessor := range accessors(tokens) {
		t := tokens[accessor]
		if node, ok := strings.CutPrefix(t.Description, agentDescription); ok && !wanted[accessor] {
			all = append(all, c.action("token/remove/"+node+"/"+accessor, "delete the token of "+node+", which is gone or has another",
				func(ctx context.Context, through agentAPI) error {
					return through.call(ctx, http.MethodDelete, "/v1/acl/token/"+url.PathEscape(accessor), nil, nil)
				}))
		}
	}
	rotation, err := c.gossip(ctx, through)
	if err != nil {
		return nil, err
	}
	return append(all, rotation...), nil
}

// notReady is an error of ACLs that are still being set up as that of a component
// that does not run yet.
func notReady(err error) error {
	if says(err, "ACL not found") || says(err, "ACL system must be bootstrapped") || says(err, "No cluster leader") {
		return fmt.Errorf("%w: %w", component.ErrNotRunning, err)
	}
	return err
}

func accessors(tokens map[string]token) []string {
	var all []string
	for accessor := range tokens {
		all = append(all, accessor)
	}
	slices.Sort(all)
	return all
}

func sameToken(found, wanted token) bool {
	return found.SecretID == wanted.SecretID && found.Description == wanted.Description &&
		slices.Equal(found.Policies, wanted.Policies) && slices.Equal(found.NodeIdentities, wanted.NodeIdentities)
}

func (c configurator) makePolicy(w policy, found *policy) component.Action {
	title := "make the policy " + w.Name
	if found != nil {
		title = "correct the policy " + w.Name
	}
	return c.action("policy/"+strings.TrimPrefix(w.Name, "mi-lb-"), title, func(ctx context.Context, through agentAPI) error {
		existing, err := through.policyNamed(ctx, w.Name)
		if err != nil {
			return err
		}
		if existing == nil {
			return through.call(ctx, http.MethodPut, "/v1/acl/policy", w, nil)
		}
		w.ID = existing.ID
		return through.call(ctx, http.MethodPut, "/v1/acl/policy/"+url.PathEscape(existing.ID), w, nil)
	})
}

func (c configurator) makeToken(w wantedToken, otherSecret bool) component.Action {
	title := "make the token " + w.name
	if otherSecret {
		title = "replace the token " + w.name + ", which has another secret"
	}
	return c.action("token/"+w.name, title, func(ctx context.Context, through agentAPI) error {
		var existing token
		err := through.get(ctx, "/v1/acl/token/"+url.PathEscape(w.AccessorID), &existing)
		path := "/v1/acl/token"
		switch {
		case isStatus(err, http.StatusNotFound), says(err, "ACL not found"), says(err, "Cannot find token"):
		case err != nil:
			return err
		case existing.SecretID != w.SecretID:
			// A secret cannot be changed.
			if err := through.call(ctx, http.MethodDelete, path+"/"+url.PathEscape(w.AccessorID), nil, nil); err != nil {
				return err
			}
		default:
			path += "/" + url.PathEscape(w.AccessorID)
		}
		return through.call(ctx, http.MethodPut, path, w.token, nil)
	})
}

// arrival waits until a datacenter has the primary's tokens.
func (c configurator) arrival() component.Action {
	return c.action("acl/replication", "have the tokens of "+c.p.Cluster.Primary+" arrive", func(ctx context.Context, through agentAPI) error {
		patience, cancel := context.WithTimeout(ctx, arrivalPatience)
		defer cancel()
		return until(patience, func() error { return arrived(ctx, through, c.p, c.d) })
	})
}

// arrivalPatience is how long tokens may take: a server that knew none asks again
// after a time of its own, which grows to a minute.
const arrivalPatience = 3 * time.Minute

// arrived says what is missing of the primary's tokens in another datacenter. That a
// later attempt failed, as one does while the primary's leader changes, takes nothing
// away.
func arrived(ctx context.Context, through agentAPI, p component.Platform, d *cluster.Datacenter) error {
	r, err := through.replication(ctx)
	if err != nil {
		return err
	}
	if err := r.runs(); err != nil {
		return err
	}
	tokens, err := through.tokens(ctx)
	if err != nil {
		return err
	}
	for _, w := range wantedTokens(p) {
		if found, ok := tokens[w.AccessorID]; !ok || !sameToken(found, w.token) {
			return fmt.Errorf("the token %s has not arrived in datacenter %s", w.name, d.Name)
		}
	}
	return nil
}
