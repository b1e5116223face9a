package consul

import (
	"slices"
	"testing"

	"github.com/mi-lb/mi-lb/watch"
)

// The two answers about a node come in any order; neither may be believed for what only
// the other knows.
func TestAnInstanceIsBelievedOnlyWithItsChecks(t *testing.T) {
	services := func(ids ...string) (all []*nodeService) {
		for _, id := range ids {
			all = append(all, &nodeService{id: id, name: id, typical: true, entry: entry{instance: watch.Instance{ID: id}}})
		}
		return all
	}
	critical := func(ids ...string) (all []*check) {
		for _, id := range ids {
			all = append(all, &check{service: id, status: "critical"})
		}
		return all
	}
	at := func(index uint64) meta { return meta{index: index} }
	known := func(bad ...string) *nodeView {
		v := &nodeView{}
		v.takeServices(services("a", "b"), at(10), afterStart)
		v.takeChecks(critical(bad...), at(10), afterStart)
		if !v.ready() {
			t.Fatal("the first answers are not enough")
		}
		return v
	}
	healthy := func(v *nodeView) (ids []string) {
		for _, e := range v.entries() {
			if e.instance.Health == watch.HealthPassing {
				ids = append(ids, e.instance.ID)
			}
		}
		return ids
	}
	for _, test := range []struct {
		name string
		view func() *nodeView
		// wants is what is read besides the polls; then is what comes of it.
		wants   lacking
		then    func(*nodeView)
		healthy []string
	}{
		{
			name: "a new service whose checks are older",
			view: func() *nodeView {
				v := known()
				v.takeServices(services("a", "b", "c"), at(20), noDoubt)
				return v
			},
			wants: lacking{checks: true},
			then: func(v *nodeView) {
				v.takeChecks(critical("c"), at(15), noDoubt)
				if v.ready() {
					t.Error("checks from before the service are taken for its own")
				}
				v.takeChecks(critical("c"), at(20), noDoubt)
			},
			healthy: []string{"a", "b"},
		},
		{
			name: "checks that came first",
			view: func() *nodeView {
				v := known()
				v.takeChecks(critical("c"), at(20), noDoubt)
				v.takeServices(services("a", "b", "c"), at(20), noDoubt)
				return v
			},
			healthy: []string{"a", "b"},
		},
		{
			name: "a check that is gone, with the services after it",
			view: func() *nodeView {
				v := known("a")
				v.takeChecks(nil, at(20), noDoubt)
				return v
			},
			wants:   lacking{services: true, filter: `ID == "a"`},
			then:    func(v *nodeView) { v.takeServices(services("b"), at(20), noDoubt) },
			healthy: []string{"b"},
		},
		{
			name: "a check that is gone because its service is",
			view: func() *nodeView {
				v := known("a")
				v.takeChecks(nil, at(20), noDoubt)
				return v
			},
			wants: lacking{services: true, filter: `ID == "a"`},
			then: func(v *nodeView) {
				v.setSome(map[string]bool{"a": true}, nil)
				v.unsure = v.unsure.without(unsure{ids: map[string]bool{"a": true}})
			},
			healthy: []string{"b"},
		},
		{
			name: "a check that passes again",
			view: func() *nodeView {
				v := known("a")
				v.takeChecks(nil, at(20), noDoubt)
				return v
			},
			wants: lacking{services: true, filter: `ID == "a"`},
			then: func(v *nodeView) {
				v.setSome(map[string]bool{"a": true}, services("a"))
				v.unsure = v.unsure.without(unsure{ids: map[string]bool{"a": true}})
			},
			healthy: []string{"a", "b"},
		},
		{
			name: "a second check that is gone while the first is asked about",
			view: func() *nodeView {
				v := known("a", "b")
				v.takeChecks(critical("b"), at(20), noDoubt)
				asked := v.unsure
				v.takeChecks(nil, at(21), noDoubt)
				v.unsure = v.unsure.without(asked)
				return v
			},
			wants:   lacking{services: true, filter: `ID == "b"`},
			then:    func(v *nodeView) { v.takeServices(services("a"), at(21), noDoubt) },
			healthy: []string{"a"},
		},
		{
			name: "a check of the node that is gone",
			view: func() *nodeView {
				v := known("")
				if h := healthy(v); h != nil {
					t.Errorf("%v pass on a node that does not", h)
				}
				v.takeChecks(nil, at(20), noDoubt)
				return v
			},
			wants:   lacking{services: true},
			then:    func(v *nodeView) { v.takeServices(nil, at(20), noDoubt) },
			healthy: nil,
		},
		{
			name: "a service whose id no filter can hold",
			view: func() *nodeView {
				v := known()
				v.takeServices(services(`"`), at(20), noDoubt)
				v.takeChecks(critical(`"`), at(20), noDoubt)
				v.takeChecks(nil, at(30), noDoubt)
				return v
			},
			wants:   lacking{services: true},
			then:    func(v *nodeView) { v.takeServices(services(`"`), at(30), noDoubt) },
			healthy: []string{`"`},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			v := test.view()
			if test.then != nil {
				if v.ready() {
					t.Fatal("believed before the other half is known")
				}
				l := v.lacks()
				if l.services != test.wants.services || l.checks != test.wants.checks || l.filter != test.wants.filter {
					t.Errorf("wants %+v", l)
				}
				test.then(v)
			}
			if !v.ready() {
				t.Fatalf("still wants %+v", v.lacks())
			}
			if l := v.lacks(); !l.services || !l.checks || l.filter != "" {
				t.Errorf("a node about which nothing is wanted is read in parts: %+v", l)
			}
			if h := slices.Sorted(slices.Values(healthy(v))); !slices.Equal(h, test.healthy) {
				t.Errorf("%v pass, want %v", h, test.healthy)
			}
		})
	}
}
