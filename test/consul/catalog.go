package consul

import (
	"context"
	"fmt"

	"github.com/hashicorp/consul/api"
)

// Register puts a node, and what the registration has besides, into the
// catalog directly: for nodes that have no agent.
func (a *Agent) Register(ctx context.Context, r *api.CatalogRegistration) error {
	if _, err := a.Client().Catalog().Register(r, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("register with Consul agent %s: %w", a.options.Node, err)
	}
	return nil
}

// Deregister takes a node, or one of its services or checks, out of the catalog.
func (a *Agent) Deregister(ctx context.Context, d *api.CatalogDeregistration) error {
	if _, err := a.Client().Catalog().Deregister(d, (&api.WriteOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("deregister from Consul agent %s: %w", a.options.Node, err)
	}
	return nil
}

// RegisterService registers a service of the agent's own node, as Registrator
// does.
func (a *Agent) RegisterService(ctx context.Context, s *api.AgentServiceRegistration) error {
	opts := api.ServiceRegisterOpts{ReplaceExistingChecks: true}.WithContext(ctx)
	if err := a.Client().Agent().ServiceRegisterOpts(s, opts); err != nil {
		return fmt.Errorf("register service %s with Consul agent %s: %w", s.Name, a.options.Node, err)
	}
	return nil
}

// DeregisterService takes back what RegisterService did.
func (a *Agent) DeregisterService(ctx context.Context, id string) error {
	if err := a.Client().Agent().ServiceDeregisterOpts(id, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("deregister service %s from Consul agent %s: %w", id, a.options.Node, err)
	}
	return nil
}

// SetCheck gives a TTL check of the agent's own node a status: api.HealthPassing,
// api.HealthWarning or api.HealthCritical.
func (a *Agent) SetCheck(ctx context.Context, id, status string) error {
	if err := a.Client().Agent().UpdateTTLOpts(id, "", status, (&api.QueryOptions{}).WithContext(ctx)); err != nil {
		return fmt.Errorf("set check %s at Consul agent %s: %w", id, a.options.Node, err)
	}
	return nil
}
