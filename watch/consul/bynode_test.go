package consul

import (
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
	checks := func(ids ...string) (all []*check) {
		for _, id := range ids {
			all = append(all, &check{service: id, status: "passing"})
		}
		return all
	}
	at := func(index uint64) meta { return meta{index: index} }
	known := func() *nodeView {
		v := &nodeView{}
		v.takeServices(services("a"), at(10), afterStart)
		v.takeChecks(checks("a"), at(10), afterStart)
		if !v.ready() {
			t.Fatal("the first answers are not enough")
		}
		return v
	}

	v := known()
	v.takeServices(services("a", "b"), at(20), noDoubt)
	if v.ready() || v.lacks() != (halves{checks: true}) {
		t.Errorf("a new service without its checks: %+v", v.lacks())
	}
	v.takeChecks(checks("a"), at(15), noDoubt)
	if v.ready() {
		t.Error("checks from before the service are taken for its own")
	}
	v.takeChecks(checks("a", "b"), at(20), noDoubt)
	if !v.ready() || len(v.entries()) != 2 {
		t.Error("not believed with its checks")
	}

	v = known()
	v.takeChecks(checks("a", "b"), at(20), noDoubt)
	v.takeServices(services("a", "b"), at(20), noDoubt)
	if !v.ready() {
		t.Error("checks that came first are asked for again")
	}

	v = known()
	v.takeChecks(checks(), at(20), noDoubt)
	if v.ready() || v.lacks() != (halves{services: true}) {
		t.Errorf("a service that lost its checks: %+v", v.lacks())
	}
	v.takeServices(services(), at(20), noDoubt)
	if !v.ready() || len(v.entries()) != 0 || v.doubt() != afterStart && v.doubt() != noDoubt {
		t.Error("not gone with its checks")
	}
	if v.lacks() != (halves{true, true}) {
		t.Error("a node about which nothing is wanted is read in halves")
	}
}
