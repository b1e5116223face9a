package consul

import (
	"testing"
	"time"
)

func TestAnAbsenceIsBelievedByRule(t *testing.T) {
	c := Confirmation{}.withDefaults()
	for _, test := range []struct {
		name           string
		why            doubt
		known, missing int
		stood          time.Duration
		gone           bool
	}{
		{"no doubt: at once", noDoubt, 10, 10, 0, true},
		{"some, not long enough", afterError, 10, 3, 59 * time.Second, false},
		{"some, long enough", afterError, 10, 3, time.Minute, true},
		{"half is some", afterReset, 10, 5, time.Minute, true},
		{"more than half, long enough for some", afterReset, 10, 6, time.Minute, false},
		{"more than half, long enough", filtered, 10, 6, 10 * time.Minute, true},
		{"the only one is most", afterStart, 1, 1, 9 * time.Minute, false},
		{"a new token", afterNewToken, 100, 1, 0, false},
		{"no leader", leaderless, 100, 1, time.Second, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.gone(test.why, test.known, test.missing, test.stood); got != test.gone {
				t.Errorf("gone: %v, want %v", got, test.gone)
			}
		})
	}
}

func TestTheModeIsTheCheapestThatFits(t *testing.T) {
	for _, test := range []struct {
		name      string
		size      size
		available int
		current   mode
		want      mode
	}{
		{"few services, many nodes", size{50, 1000}, 120, 0, byService},
		{"many services, few nodes", size{5000, 50}, 120, 0, byNode},
		{"many of both", size{5000, 500}, 120, 0, byTrigger},
		{"many of both, room for them", size{5000, 500}, 4000, 0, byNode},
		{"nothing available", size{1, 1}, -5, byService, byTrigger},
		{"a little dearer than the other: stays", size{60, 25}, 120, byService, byService},
		{"much dearer than the other: changes", size{100, 10}, 120, byService, byNode},
		{"just fits: not out of by trigger yet", size{118, 1000}, 120, byTrigger, byTrigger},
		{"just fits: stays", size{118, 1000}, 120, byService, byService},
		{"fits well: out of by trigger", size{80, 1000}, 120, byTrigger, byService},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := choose(test.size, test.available, test.current); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}

func TestConnectionsAreSharedByDatacentersAndGivenUpQueriesCount(t *testing.T) {
	now := time.Unix(1000, 0)
	l := newLines(100, func() time.Time { return now })
	if m := l.choose("dc1", size{60, 200}, 0); m != byService {
		t.Fatalf("dc1 %s", m)
	}
	if m := l.choose("dc2", size{60, 200}, 0); m != byTrigger {
		t.Errorf("dc2 %s with what dc1 leaves", m)
	}
	l.release("dc1")
	for range 60 {
		l.linger(now.Add(time.Minute))
	}
	if m := l.choose("dc2", size{60, 200}, byTrigger); m != byTrigger {
		t.Errorf("dc2 %s while given-up queries count", m)
	}
	now = now.Add(2 * time.Minute)
	if m := l.choose("dc2", size{60, 200}, byTrigger); m != byService {
		t.Errorf("dc2 %s after they ended", m)
	}
	l.refused()
	l.refused() // part of the same refusal
	if m := l.choose("dc2", size{60, 200}, byService); m != byTrigger {
		t.Errorf("dc2 %s after a refusal", m)
	}
	if m := l.choose("dc2", size{40, 200}, byTrigger); m != byService {
		t.Errorf("dc2 %s with half the connections", m)
	}
}
