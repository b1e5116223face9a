package consul

import (
	"net/netip"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

func at(service, node, address string) entry {
	return entry{service: service, port: 80, instance: watch.Instance{
		ID: service, Node: node, Address: netip.MustParseAddrPort(address), Health: watch.HealthPassing,
	}}
}

func unresolved(string) (netip.Addr, error) { return netip.Addr{}, nil }

func TestWhatIsMissingFromADoubtfulAnswerIsHeld(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCatalog("dc1", nil, Confirmation{Some: time.Minute, Most: time.Hour}, unresolved)
	web := scope{ofService, "web"}
	all := []entry{at("web", "n1", "10.0.0.1:80"), at("web", "n2", "10.0.0.2:80"), at("web", "n3", "10.0.0.3:80"), at("web", "n4", "10.0.0.4:80")}
	instances := func() int {
		if p := c.flush(); p == nil && c.part == nil {
			t.Fatal("no part")
		}
		if s := c.part.Services["web"]; s != nil {
			return len(s.Instances)
		}
		return 0
	}
	c.apply(web, all, noDoubt, now)
	if instances() != 4 {
		t.Fatalf("%d instances", instances())
	}
	c.apply(web, all[:3], afterError, now)
	if instances() != 4 || len(c.held) != 1 {
		t.Errorf("%d instances, %d held, after a doubtful answer", instances(), len(c.held))
	}
	// A good answer after it that lacks another one is believed about that one.
	c.apply(web, all[:2], noDoubt, now)
	if instances() != 3 || len(c.held) != 1 {
		t.Errorf("%d instances, %d held, after a good answer", instances(), len(c.held))
	}
	now = now.Add(59 * time.Second)
	c.confirmed(now)
	if instances() != 3 {
		t.Errorf("%d instances before the time is over", instances())
	}
	// A break stops the clock.
	c.interrupt()
	c.confirmed(now.Add(time.Hour))
	c.apply(web, all[:2], noDoubt, now)
	c.confirmed(now.Add(59 * time.Second))
	if instances() != 3 {
		t.Errorf("%d instances after a break", instances())
	}
	c.confirmed(now.Add(time.Minute))
	if instances() != 2 || len(c.held) != 0 {
		t.Errorf("%d instances, %d held, in the end", instances(), len(c.held))
	}
}

func TestAHeldInstanceGivesWayToAnotherAtItsAddress(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCatalog("dc1", nil, Confirmation{}, unresolved)
	c.apply(scope{ofService, "web"}, []entry{at("web", "n1", "10.0.0.1:80")}, noDoubt, now)
	c.apply(scope{ofService, "web"}, nil, afterReset, now)
	if len(c.held) != 1 {
		t.Fatalf("%d held", len(c.held))
	}
	c.apply(scope{ofService, "other"}, []entry{at("other", "n9", "10.0.0.1:80")}, noDoubt, now)
	c.flush()
	if c.part.Services["web"] != nil || len(c.held) != 0 || len(c.heldAt) != 0 {
		t.Errorf("web still at the address of another: %v", c.part.Services["web"])
	}
}

func TestAPartThatIsTheSameIsNotPublishedAndServicesKeepTheirPointers(t *testing.T) {
	now := time.Unix(1000, 0)
	c := newCatalog("dc1", nil, Confirmation{}, unresolved)
	c.apply(scope{ofNode, "n1"}, []entry{at("web", "n1", "10.0.0.1:80"), at("api", "n1", "10.0.0.1:81")}, noDoubt, now)
	first := c.flush()
	c.apply(scope{ofNode, "n1"}, []entry{at("web", "n1", "10.0.0.1:80"), at("api", "n1", "10.0.0.1:81")}, noDoubt, now)
	if c.changed() || c.flush() != nil {
		t.Error("the same answer made a part")
	}
	c.apply(scope{ofNode, "n1"}, []entry{at("web", "n1", "10.0.0.1:80"), at("api", "n1", "10.0.0.1:82")}, noDoubt, now)
	second := c.flush()
	if second.Services["web"] != first.Services["web"] || second.Services["api"] == first.Services["api"] {
		t.Error("pointers do not say what changed")
	}
	if first.Services["api"].Instances[0].Address.Port() != 81 {
		t.Error("a published part has changed")
	}
	// The same instance under another name.
	renamed := at("new", "n1", "10.0.0.1:80")
	renamed.instance.ID = "web"
	c.apply(scope{ofService, "new"}, []entry{renamed}, noDoubt, now)
	c.apply(scope{ofService, "web"}, nil, noDoubt, now)
	third := c.flush()
	if third.Services["web"] != nil || third.Services["new"] == nil {
		t.Errorf("after renaming: %v", third.Services)
	}
}
