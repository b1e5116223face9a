package mesosagent

import "testing"

// Attributes and resources come from the inventory and from files of machines.
func FuzzAdditive(f *testing.F) {
	for _, s := range []string{"rack:2;zone:a", "ports(*):[31000-32000, 4000-5000]", "set:{a,b}", ";;:", "x:[9-1]", "x:[1-2"} {
		f.Add(s, s)
		f.Add(s, s+";more:1")
	}
	f.Fuzz(func(t *testing.T, before, now string) {
		if why := additive(parse(before), parse(before)); why != "" {
			t.Errorf("%q differs from itself: %s", before, why)
		}
		if len(parse(before)) > 0 && additive(parse(before), nil) == "" {
			t.Errorf("%q may be removed", before)
		}
		additive(parse(before), parse(now))
	})
}
