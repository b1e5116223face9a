package consul

import (
	"encoding/json"
	"maps"
	"testing"
)

// FuzzMerge puts any mapping over a configuration: everything of it is there, and
// what it does not name stays.
func FuzzMerge(f *testing.F) {
	f.Add(`{"limits": {"a": 1}, "x": 1}`, `{"limits": {"b": 2}, "y": [1]}`)
	f.Add(`{"a": {"b": {}}}`, `{"a": 1}`)
	f.Fuzz(func(t *testing.T, below, above string) {
		var a, b object
		if json.Unmarshal([]byte(below), &a) != nil || json.Unmarshal([]byte(above), &b) != nil || a == nil || b == nil {
			return
		}
		before := maps.Clone(a)
		c := merge(a, b)
		if encode(merge(c, b)) != encode(c) {
			t.Error("put over it again, it is another")
		}
		if encode(a) != encode(before) {
			t.Error("what was merged into has changed")
		}
		for key := range a {
			if _, ok := c[key]; !ok {
				t.Errorf("%q is gone", key)
			}
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add("1.22.5")
	f.Add("v1.8.7+dfsg1-2+b3")
	f.Add("1.99999999999999999999")
	f.Fuzz(func(t *testing.T, version string) {
		if before(version, 1, 12) && !before(version, 1, 17) {
			t.Errorf("%q is older than 1.12, and not older than 1.17", version)
		}
	})
}
