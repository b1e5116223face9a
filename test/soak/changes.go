package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// catalog is what this has put into Consul besides what stays.
type catalog struct {
	next    int
	visitor []*instance
	// alone are instances of services of their own.
	alone []*instance
}

// instance in Consul, on one of a few nodes without agents.
type instance struct {
	number  int
	service string
	address netip.AddrPort
	weight  int
	tags    []string
	health  string
}

func (i *instance) registration() *api.CatalogRegistration {
	id := fmt.Sprintf("%s-%d", i.service, i.number)
	node := i.number % 5
	return &api.CatalogRegistration{
		Node: fmt.Sprintf("node-%d", node), Address: fmt.Sprintf("127.62.0.%d", node),
		Service: &api.AgentService{
			ID: id, Service: i.service, Address: i.address.Addr().String(), Port: int(i.address.Port()), Tags: i.tags,
			Weights: api.AgentWeights{Passing: i.weight, Warning: 1},
		},
		Check: &api.AgentCheck{Node: fmt.Sprintf("node-%d", node), CheckID: "check-" + id, Name: "service", Status: i.health, ServiceID: id},
	}
}

// fresh has an address that no other has had.
func (s *soak) fresh(service string) *instance {
	n := s.next
	s.next++
	return &instance{number: n, service: service, address: s.address(n), weight: 1, health: passing}
}

// address of the n-th instance: all are on the one port of the servers.
func (s *soak) address(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, byte(64 + n>>16), byte(n >> 8), byte(n)}), uint16(s.servers.Port))
}

func (s *soak) register(i *instance) {
	s.write(func(ctx context.Context) error { return s.agent.Register(ctx, i.registration()) })
}

func (s *soak) deregister(i *instance) {
	r := i.registration()
	s.write(func(ctx context.Context) error {
		return s.agent.Deregister(ctx, &api.CatalogDeregistration{Node: r.Node, ServiceID: r.Service.ID})
	})
}

func permanentName(i int) string { return fmt.Sprintf("web-%02d", i) }

// fill puts what stays into Consul.
func (s *soak) fill() {
	for i := range s.o.services {
		for range 2 {
			s.register(s.fresh(permanentName(i)))
		}
	}
	lasting := startLasting(s.t)
	ws := s.fresh("ws")
	ws.address = lasting.http
	s.register(ws)
	s.echo = lasting.tcp
}

// apps are what this has put into Marathon.
type apps struct {
	// echo is the address of the TCP server behind tcpPort, a service port.
	echo    netip.AddrPort
	tcpPort int
	// extra are ids of apps that come and go, web is one that stays.
	extra   []string
	appNext int
}

func app(id string, port int, labels map[string]string) []byte {
	document, err := json.Marshal(map[string]any{
		"id": id, "cmd": "true", "cpus": 0.1, "mem": 16, "instances": 1, "labels": labels,
		"networks":        []any{map[string]any{"mode": "host"}},
		"portDefinitions": []any{map[string]any{"port": port, "protocol": "tcp"}},
	})
	if err != nil {
		panic(err) // strings and numbers can be encoded
	}
	return document
}

// tasks of an app, of which the first stays.
func (s *soak) tasks(id string, n int) []marathon.FakeTask {
	var all []marathon.FakeTask
	for i := range n {
		number := 1<<16 + i // not one of Consul's
		if i > 0 {
			number += 1 + s.random.IntN(10_000)
		}
		at := s.address(number)
		all = append(all, marathon.FakeTask{ID: fmt.Sprintf("%s.%d", id[1:], number), Host: at.Addr().String(), Ports: []int{int(at.Port())}})
	}
	return all
}

// deploy puts what stays into Marathon.
func (s *soak) deploy() {
	s.tcpPort = edge.FreePort(s.t)
	s.check(s.cluster.PutApp(app("/echo", s.tcpPort, map[string]string{"mi-lb.mode": "tcp"}),
		marathon.FakeTask{ID: "echo.1", Host: s.echo.Addr().String(), Ports: []int{int(s.echo.Port())}}))
	s.check(s.cluster.PutApp(app("/shop", edge.FreePort(s.t), map[string]string{"mi-lb.mode": "http"}), s.tasks("/shop", 2)...))
}

// change does one thing, as it comes.
func (s *soak) change() {
	name := ""
	switch n := s.random.IntN(100); {
	case n < 25 || len(s.visitor) == 0:
		name = "instance added"
		i := s.fresh(permanentName(s.random.IntN(s.o.services)))
		s.register(i)
		s.visitor = append(s.visitor, i)
	case n < 45:
		name = "instance removed"
		s.deregister(take(s, &s.visitor))
	case n < 60:
		name = "health changed"
		i := s.visitor[s.random.IntN(len(s.visitor))]
		i.health = map[string]string{passing: critical, critical: api.HealthWarning, api.HealthWarning: passing}[i.health]
		s.register(i)
	case n < 70:
		name = "weight changed"
		i := s.visitor[s.random.IntN(len(s.visitor))]
		i.weight = 1 + s.random.IntN(9)
		s.register(i)
	case n < 78:
		name = "service added"
		i := s.fresh(fmt.Sprintf("alone-%d", s.next))
		if s.random.IntN(2) == 0 {
			i.tags = []string{fmt.Sprintf("mi-lb.host=alone-%d.example.com", i.number)}
		}
		s.register(i)
		s.alone = append(s.alone, i)
	case n < 84:
		if len(s.alone) > 0 {
			name = "service removed"
			s.deregister(take(s, &s.alone))
		}
	case n < 94:
		name = "tasks changed"
		id := "/shop"
		if len(s.extra) > 0 && s.random.IntN(2) == 0 {
			id = s.extra[s.random.IntN(len(s.extra))]
		}
		s.check(s.cluster.SetTasks(id, s.tasks(id, 1+s.random.IntN(4))...))
	case n < 97:
		name = "app added"
		id := fmt.Sprintf("/extra-%d", s.appNext)
		s.appNext++
		s.check(s.cluster.PutApp(app(id, edge.FreePort(s.t), map[string]string{"mi-lb.mode": "http"}), s.tasks(id, 1+s.random.IntN(3))...))
		s.extra = append(s.extra, id)
	default:
		if len(s.extra) > 0 {
			name = "app removed"
			s.check(s.cluster.RemoveApp(take(s, &s.extra)))
		}
	}
	// Neither more nor fewer of them in the long run.
	if len(s.visitor) > 60 {
		s.deregister(take(s, &s.visitor))
	}
	if len(s.alone) > 20 {
		s.deregister(take(s, &s.alone))
	}
	if name != "" {
		s.done[name]++
	}
}

// take removes any one.
func take[T any](s *soak, from *[]T) T {
	i := s.random.IntN(len(*from))
	taken := (*from)[i]
	*from = append((*from)[:i], (*from)[i+1:]...)
	return taken
}
