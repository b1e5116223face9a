package resolve

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

func TestLastKnownAddressOutlivesAFailedLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var found []netip.Addr
		var fail error
		asked := 0
		r := New(func(context.Context, string) ([]netip.Addr, error) { asked++; return found, fail }, time.Minute)
		resolve := func() Answer { return r.Resolve(t.Context(), []string{"agent1", "agent1"})["agent1"] }

		fail = errors.New("server misbehaving")
		if a := resolve(); a.Addr.IsValid() || a.Err == nil {
			t.Fatalf("never resolved: %+v", a)
		}
		resolve()
		if asked != 1 {
			t.Errorf("a failure was asked for again at once: %d lookups", asked)
		}

		time.Sleep(retryAfter)
		fail, found = nil, addrs("fd00::1", "10.0.0.2", "10.0.0.1")
		if a := resolve(); a.Addr != netip.MustParseAddr("10.0.0.1") || a.Err != nil {
			t.Fatalf("lowest IPv4 expected: %+v", a)
		}
		found = addrs("10.0.0.0", "10.0.0.1")
		time.Sleep(time.Minute)
		if a := resolve(); a.Addr != netip.MustParseAddr("10.0.0.1") {
			t.Errorf("moved although the address in use is still there: %+v", a)
		}
		fail = errors.New("timeout")
		time.Sleep(time.Minute)
		if a := resolve(); a.Addr != netip.MustParseAddr("10.0.0.1") || a.Err == nil {
			t.Errorf("last known address and the error expected: %+v", a)
		}
		fail, found = nil, addrs("10.0.0.9")
		time.Sleep(time.Minute)
		if a := resolve(); a.Addr != netip.MustParseAddr("10.0.0.9") || a.Err != nil {
			t.Errorf("did not follow the name: %+v", a)
		}
	})
}

func TestLiteralAddressesAreNotLookedUp(t *testing.T) {
	r := New(func(context.Context, string) ([]netip.Addr, error) { t.Error("looked up"); return nil, nil }, time.Minute)
	got := r.Resolve(t.Context(), []string{"10.0.0.1", "::ffff:10.0.0.2", "fe80::1%eth0"})
	for host, want := range map[string]string{"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.2": "10.0.0.2", "fe80::1%eth0": "fe80::1"} {
		if got[host].Addr != netip.MustParseAddr(want) {
			t.Errorf("%s: %v", host, got[host])
		}
	}
}

func TestNoAnswerForANameIsAnError(t *testing.T) {
	r := New(func(context.Context, string) ([]netip.Addr, error) { return nil, nil }, time.Minute)
	if a := r.Resolve(t.Context(), []string{"x"})["x"]; a.Err == nil {
		t.Error("no error")
	}
}
