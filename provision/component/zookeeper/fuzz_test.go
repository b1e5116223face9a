package zookeeper

import (
	"strings"
	"testing"
)

// FuzzConfiguration reads zoo.cfg as it may be found on a machine: any text is read,
// means the same as itself, and gives steps and members that can be compared.
func FuzzConfiguration(f *testing.F) {
	f.Add("tickTime=2000\nserver.1=10.0.0.1:2888:3888;2181\nsslQuorum=true\n# x\n")
	f.Add("server.=\n=\n!\nserver.1\r\nportUnification = true\ndynamicConfigFile=/x")
	f.Fuzz(func(t *testing.T, text string) {
		if !sameConfiguration(text, text) {
			t.Error("it is not the same as itself")
		}
		all := members(text)
		if n := different(all, all); n != 0 {
			t.Errorf("%d members differ from themselves", n)
		}
		if n := different(all, nil); n > len(all) {
			t.Errorf("%d of %d members are gone", n, len(all))
		}
		if step := tlsStep(text); !strings.Contains("off accept prefer require", step) || step == "" {
			t.Errorf("step %q", step)
		}
	})
}

// FuzzStatus reads what a server answers: a state, or an error, never neither.
func FuzzStatus(f *testing.F) {
	f.Add("zk_server_state\tleader\nzk_synced_followers\t2.0\nzk_quorum_size\t3\n")
	f.Add("This ZooKeeper instance is not currently serving requests\n")
	f.Add("zk_server_state\t\nzk_synced_followers\tNaN\n")
	f.Fuzz(func(t *testing.T, answer string) {
		s, err := parseStatus(answer)
		if (err == nil) == (s.state == "") {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

func FuzzVersion(f *testing.F) {
	f.Add("3.4.13-6")
	f.Add("3.8.0-11+deb12u2")
	f.Add("99999999999999999999.1")
	f.Fuzz(func(t *testing.T, version string) { old(version) })
}
