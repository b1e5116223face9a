package routing

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/mi-lb/mi-lb/watch"
)

func BenchmarkCompile(b *testing.B) {
	for _, size := range []struct{ services, instances int }{{100, 3}, {1000, 4}, {5000, 4}, {10000, 5}} {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.instances), func(b *testing.B) {
			part := &watch.Part{Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1", Services: map[string]*watch.Service{}}
			for i := range size.services {
				s := &watch.Service{Name: fmt.Sprintf("service-%05d", i)}
				for j := range size.instances {
					s.Instances = append(s.Instances, watch.Instance{
						ID: fmt.Sprintf("%s-%d", s.Name, j), Node: fmt.Sprintf("node-%d", j), Tags: []string{"v1"},
						Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 80),
						Health:  watch.HealthPassing, Weights: watch.Weights{Passing: 1, Warning: 1},
					})
				}
				part.Services[s.Name] = s
			}
			snapshot := &watch.Snapshot{Datacenter: "dc1", Parts: []*watch.Part{part}}
			for b.Loop() {
				Compile(snapshot, Policy{Domain: "example.com", ConsulDomain: "consul"}, nil)
			}
		})
	}
}
