package routing

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/mi-lb/mi-lb/watch"
)

var benchSizes = []struct{ services, instances int }{{100, 3}, {1000, 4}, {5000, 4}, {10000, 5}}

var benchPolicy = Policy{Domain: "example.com", ConsulDomain: "consul"}

func benchSnapshot(services, instances int) *watch.Snapshot {
	part := &watch.Part{Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1", Services: map[string]*watch.Service{}}
	for i := range services {
		s := &watch.Service{Name: fmt.Sprintf("service-%05d", i)}
		for j := range instances {
			s.Instances = append(s.Instances, watch.Instance{
				ID: fmt.Sprintf("%s-%d", s.Name, j), Node: fmt.Sprintf("node-%d", j), Tags: []string{"v1"},
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), byte(j)}), 80),
				Health:  watch.HealthPassing, Weights: watch.Weights{Passing: 1, Warning: 1},
			})
		}
		part.Services[s.Name] = s
	}
	return &watch.Snapshot{Datacenter: "dc1", Parts: []*watch.Part{part}}
}

// withChange is the snapshot with one service another one.
func withChange(s *watch.Snapshot, name string, change func(*watch.Service) *watch.Service) *watch.Snapshot {
	part := *s.Parts[0]
	part.Services = maps.Clone(part.Services)
	copied := &watch.Service{Name: name}
	if was := part.Services[name]; was != nil {
		copied.Instances = slices.Clone(was.Instances)
	}
	if is := change(copied); is != nil {
		part.Services[name] = is
	} else {
		delete(part.Services, name)
	}
	return s.With(&part, s.At)
}

func BenchmarkCompile(b *testing.B) {
	for _, size := range benchSizes {
		b.Run(fmt.Sprintf("%dx%d", size.services, size.instances), func(b *testing.B) {
			snapshot := benchSnapshot(size.services, size.instances)
			b.ReportAllocs()
			for b.Loop() {
				Compile(snapshot, benchPolicy, nil)
			}
		})
	}
}

// BenchmarkCompiler is what one change costs, without the copy of the part that comes
// before it.
func BenchmarkCompiler(b *testing.B) {
	for _, size := range benchSizes {
		first := benchSnapshot(size.services, size.instances)
		name := fmt.Sprintf("service-%05d", size.services/2)
		toggle := func(b *testing.B, second *watch.Snapshot) {
			b.ReportAllocs()
			c := NewCompiler(nil)
			c.Compile(first, benchPolicy)
			snapshots := []*watch.Snapshot{second, first}
			for i := 0; b.Loop(); i++ {
				c.Compile(snapshots[i%2], benchPolicy)
			}
		}
		b.Run(fmt.Sprintf("first/%dx%d", size.services, size.instances), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewCompiler(nil).Compile(first, benchPolicy)
			}
		})
		b.Run(fmt.Sprintf("health/%dx%d", size.services, size.instances), func(b *testing.B) {
			toggle(b, withChange(first, name, func(s *watch.Service) *watch.Service {
				s.Instances[0].Health = watch.HealthCritical
				return s
			}))
		})
		b.Run(fmt.Sprintf("service/%dx%d", size.services, size.instances), func(b *testing.B) {
			toggle(b, withChange(first, name, func(*watch.Service) *watch.Service { return nil }))
		})
	}
}
