package world

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/consul/api"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/bench/usage"
	"github.com/mi-lb/mi-lb/test/consul"
)

// Consul is a datacenter.
type Consul struct {
	Server *consul.Agent
	// Default is an agent as its packages configure it: 200 connections for each
	// client address. Raised allows any number.
	Default, Raised *consul.Agent

	p       *program.Program
	client  *api.Client
	catalog *Catalog // as filled
}

// gossip as it is by default: test/consul is quicker, and busier when idle.
var gossip = map[string]any{"gossip_interval": "200ms", "probe_interval": "1s", "probe_timeout": "500ms", "suspicion_mult": 4}

// StartConsul runs one until the scope ends.
func StartConsul(p *program.Program) *Consul {
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	start := func(o consul.Options) *consul.Agent {
		if o.Config == nil {
			o.Config = map[string]any{}
		}
		o.Config["gossip_lan"] = gossip
		o.Config["log_level"] = "warn"
		a, err := consul.Start(ctx, o)
		p.Check(err)
		p.Cleanup(a.Stop)
		return a
	}
	// The agent refuses to start if it may not have as many descriptors.
	var files unix.Rlimit
	p.Check(unix.Getrlimit(unix.RLIMIT_NOFILE, &files))
	most := min(files.Cur, 1<<20)
	c := startServer(p, start(consul.Options{}))
	p.Check(c.Server.WaitLeader(ctx))
	c.Default = start(consul.Options{Client: true, Node: "edge-default", Join: []string{c.Server.SerfLAN()}})
	c.Raised = start(consul.Options{Client: true, Node: "edge-raised", Join: []string{c.Server.SerfLAN()}, Config: map[string]any{
		"limits": map[string]any{"http_max_conns_per_client": most - 1000},
	}})
	p.Check(c.Default.WaitLeader(ctx))
	p.Check(c.Raised.WaitLeader(ctx))
	return c
}

// StartConsulServer runs a server alone, without agents, until the scope ends.
func StartConsulServer(p *program.Program) *Consul {
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	a, err := consul.Start(ctx, consul.Options{Config: map[string]any{"gossip_lan": gossip, "log_level": "warn"}})
	p.Check(err)
	p.Cleanup(a.Stop)
	p.Check(a.WaitLeader(ctx))
	return startServer(p, a)
}

func startServer(p *program.Program, a *consul.Agent) *Consul {
	c := &Consul{p: p, Server: a}
	// A client of its own: what is measured is not what the first connection takes.
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	client, err := api.NewClient(&api.Config{Address: c.Server.HTTPAddress(), Scheme: "http", HttpClient: &http.Client{Transport: transport, Timeout: 30 * time.Second}})
	p.Check(err)
	c.client = client
	return c
}

// CPU that the server and the agent have used.
func (c *Consul) CPU(agent *consul.Agent) time.Duration {
	return usage.CPU(c.Server.PID(), agent.PID())
}

// operationsPerTransaction is what Consul accepts.
const operationsPerTransaction = 128

// Fill makes the catalog what it is given, in one go.
func (c *Consul) Fill(catalog *Catalog) {
	c.catalog = catalog
	begin := time.Now()
	var nodes, rest api.TxnOps
	for i := range catalog.Nodes {
		nodes = append(nodes, &api.TxnOp{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{
			Node: NodeName(i), Address: nodeAddress(i), Datacenter: c.Server.Datacenter(),
		}}})
	}
	for _, i := range catalog.Instances {
		rest = append(rest,
			&api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: i.Node, Service: *i.service()}},
			&api.TxnOp{Check: &api.CheckTxnOp{Verb: api.CheckSet, Check: *i.check(api.HealthPassing)}},
		)
	}
	c.p.Check(c.transact(nodes))
	c.p.Check(c.transact(rest))
	c.p.Logf("registered %d instances of %d services on %d nodes in %s", len(catalog.Instances), catalog.Services, catalog.Nodes, time.Since(begin).Round(time.Millisecond))
}

func (c *Consul) transact(all api.TxnOps) error {
	var group errgroup.Group
	group.SetLimit(8)
	for len(all) > 0 {
		n := min(len(all), operationsPerTransaction)
		some := all[:n]
		all = all[n:]
		group.Go(func() error {
			ok, response, _, err := c.client.Txn().Txn(some, (&api.QueryOptions{}).WithContext(c.p.Context()))
			if err != nil {
				return fmt.Errorf("fill Consul's catalog: %w", err)
			}
			if !ok {
				return fmt.Errorf("fill Consul's catalog: %s", response.Errors[0].What)
			}
			return nil
		})
	}
	return group.Wait()
}

// Register puts an instance into the catalog, or changes it: one write.
func (c *Consul) Register(i Instance) error { return c.register(i, api.HealthPassing) }

// SetHealth changes an instance's check alone: one write.
func (c *Consul) SetHealth(i Instance, status string) error {
	r := &api.CatalogRegistration{Node: i.Node, Address: i.nodeAddress, SkipNodeUpdate: true, Checks: api.HealthChecks{i.check(status)}}
	return c.write(func(o *api.WriteOptions) error {
		_, err := c.client.Catalog().Register(r, o)
		return err
	})
}

func (c *Consul) register(i Instance, status string) error {
	r := &api.CatalogRegistration{Node: i.Node, Address: i.nodeAddress, SkipNodeUpdate: true, Service: i.service(), Checks: api.HealthChecks{i.check(status)}}
	return c.write(func(o *api.WriteOptions) error {
		_, err := c.client.Catalog().Register(r, o)
		return err
	})
}

// Deregister takes an instance out of the catalog.
func (c *Consul) Deregister(i Instance) error {
	return c.write(func(o *api.WriteOptions) error {
		_, err := c.client.Catalog().Deregister(&api.CatalogDeregistration{Node: i.Node, ServiceID: i.ID()}, o)
		return err
	})
}

func (c *Consul) write(do func(*api.WriteOptions) error) error {
	if err := do((&api.WriteOptions{}).WithContext(c.p.Context())); err != nil {
		return fmt.Errorf("write to Consul's catalog: %w", err)
	}
	return nil
}

// Save is a snapshot of everything, for Restore.
func (c *Consul) Save() []byte {
	reader, _, err := c.client.Snapshot().Save(nil)
	c.p.Check(err)
	defer reader.Close()
	saved, err := io.ReadAll(reader)
	c.p.Check(err)
	return saved
}

// Restore puts everything back to a snapshot, indexes included.
func (c *Consul) Restore(saved []byte) {
	c.p.Check(c.client.Snapshot().Restore(nil, bytes.NewReader(saved)))
}
