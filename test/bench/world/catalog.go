package world

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/hashicorp/consul/api"
)

// Catalog is what Consul is filled with.
type Catalog struct {
	Services, Each, Nodes int
	Instances             []Instance
	// port of the servers.
	port int
	next int
}

// Instance of a service. It is registered on a node without an agent.
type Instance struct {
	Service string
	Node    string
	Address netip.AddrPort
	// Weight in Consul; 1 where it is 0.
	Weight int
	// Quiet turns HAProxy's own checks of the instance off, here and in the peers'
	// template.
	Quiet bool
	// Tags and Meta as in Consul.
	Tags []string
	Meta map[string]string

	nodeAddress string
}

// ID is unique.
func (i Instance) ID() string { return i.Service + "-" + i.Address.String() }

// QuietKey is the service key that turns HAProxy's checks off.
const QuietKey = "mi-lb-check-disable"

func (i Instance) service() *api.AgentService {
	weight := max(i.Weight, 1)
	s := &api.AgentService{
		ID: i.ID(), Service: i.Service, Address: i.Address.Addr().String(), Port: int(i.Address.Port()),
		Tags: i.Tags, Weights: api.AgentWeights{Passing: weight, Warning: 1}, Meta: map[string]string{},
	}
	for key, value := range i.Meta {
		s.Meta[key] = value
	}
	if i.Quiet {
		s.Meta[QuietKey] = "true"
	}
	return s
}

func (i Instance) check(status string) *api.HealthCheck {
	return &api.HealthCheck{Node: i.Node, CheckID: "check-" + i.ID(), Name: "service", Status: status, ServiceID: i.ID(), ServiceName: i.Service}
}

// NewCatalog has services named ServiceName(0), … with so many instances each, spread
// over the nodes, all served on the port of the servers. HAProxy's checks are off for
// all of them: 20,000 connections in every interval would be measured more than
// anything else, in all candidates alike.
func NewCatalog(services, each, nodes, port int) *Catalog {
	c := &Catalog{Services: services, Each: each, Nodes: nodes, port: port}
	for s := range services {
		for range each {
			i := c.New(ServiceName(s))
			i.Quiet = true
			c.Instances = append(c.Instances, i)
		}
	}
	return c
}

// NewSites has services whose instances are elsewhere: their addresses by their names.
// HAProxy checks them as it does by default.
func NewSites(addresses map[string][]netip.AddrPort) *Catalog {
	c := &Catalog{Services: len(addresses), Nodes: 4}
	for _, name := range slices.Sorted(maps.Keys(addresses)) {
		for _, address := range addresses[name] {
			i := c.New(name)
			i.Address = address
			c.Instances = append(c.Instances, i)
		}
	}
	return c
}

// New is an instance with an address that no other has had, not yet registered.
func (c *Catalog) New(service string) Instance {
	n := c.next
	c.next++
	node := n % c.Nodes
	return Instance{
		Service: service, Node: NodeName(node), nodeAddress: nodeAddress(node),
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(64 + n>>16), byte(n >> 8), byte(n)}), uint16(c.port)),
	}
}

// ServiceName of the n-th service.
func ServiceName(n int) string { return fmt.Sprintf("service-%05d", n) }

// NodeName of the n-th node.
func NodeName(n int) string { return fmt.Sprintf("node-%03d", n) }

func nodeAddress(n int) string { return fmt.Sprintf("127.63.%d.%d", n>>8, n&255) }
