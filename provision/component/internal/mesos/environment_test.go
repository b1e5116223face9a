package mesos

import (
	"strings"
	"testing"
)

func FuzzEnvironment(f *testing.F) {
	f.Add("MESOS_IP", "10.0.0.1", "MESOS_ZK", "file:///x")
	f.Add("A", "", "A", "=#")
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2 string) {
		for _, n := range []string{n1, n2} {
			if n == "" || n[0] == '#' || strings.ContainsAny(n, "=\n") {
				return
			}
		}
		if strings.Contains(v1+v2, "\n") {
			return
		}
		e := &Environment{}
		e.Set(n1, v1)
		e.Set(n2, v2)
		read := Parse(e.String())
		if n1 != n2 && read[n1] != v1 || read[n2] != v2 {
			t.Errorf("%q=%q %q=%q is read as %q", n1, v1, n2, v2, read)
		}
	})
}
