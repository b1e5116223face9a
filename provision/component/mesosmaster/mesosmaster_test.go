package mesosmaster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/mesosmaster"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// inventory has a datacenter with so many masters and two agents, and another one
// that must not count.
func inventory(masters int) string {
	var b strings.Builder
	b.WriteString("[dc=dc1]\n")
	for i := range masters {
		fmt.Fprintf(&b, "c%d private_ipv4=10.1.0.%d zk_id=%d\n", i+1, i+1, i+1)
	}
	b.WriteString("w1 private_ipv4=10.1.0.21\nw2 private_ipv4=10.1.0.22\n[dc=dc2]\nd[1:3]\n[role=control]\n")
	for i := range masters {
		fmt.Fprintf(&b, "c%d\n", i+1)
	}
	for i := range 3 {
		fmt.Fprintf(&b, "d%d private_ipv4=10.2.0.%d zk_id=%d\n", i+1, i+1, i+1)
	}
	b.WriteString("[role=worker]\nw1\nw2\n[all:vars]\n")
	return b.String()
}

func TestDesired(t *testing.T) {
	c := mesosmaster.New()
	for name, extra := range map[string]string{
		"debian": "mesos_source=package\n", "redhat": "mesos_source=package\nmesos_version=1.11.0-2.0.1.el7\n",
		"file":         "mesos_file=/srv/mesos-1.11.0.tar.gz\n",
		"image":        "mesos_image=mesosphere/mesos-master:1.7.0\n",
		"preinstalled": "mesos_source=preinstalled\nmesos_prefix=/opt/clusterd\n",
		"everything-set": "mesos_source=package\nmesos_package=aventer-mesos\nmesos_cluster=prod\nmesos_master_port=15050\nmesos_master_work_dir=/srv/mesos\n" +
			"mesos_master_options={\"allocation_interval\": \"500ms\", \"agent_reregister_timeout\": \"15mins\"}\nmesos_acls={\"permissive\": False}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.Platform(t, inventory(3)+extra)
			if name == "redhat" {
				p = componenttest.With(p, componenttest.RedHat)
			}
			part, problems := c.Desired(p, componenttest.Node(t, p, "c1"))
			if part == nil || len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+name+".txt", componenttest.Render(p, part))
			again, _ := c.Desired(p, componenttest.Node(t, p, "c1"))
			if componenttest.Render(p, again) != componenttest.Render(p, part) {
				t.Error("it is another one the second time")
			}
		})
	}
}

func TestWithoutASourceThePackageIsNamedAndTheProblemToo(t *testing.T) {
	p := componenttest.Platform(t, inventory(3))
	part, problems := mesosmaster.New().Desired(p, componenttest.Node(t, p, "c1"))
	if part == nil || len(problems) != 1 || problems[0].Fatal || !strings.Contains(problems[0].Advice, "mesos_file") {
		t.Errorf("%+v", problems)
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for extra, want := range map[string]string{
		"mesos_file=/srv/mesos-master":                       "mesos_file is no archive",
		"mesos_master_options={\"quorum\": 1}":               "has quorum, which mi-lb sets by itself",
		"mesos_master_options={\"--weights\": 1}":            "no name of a flag",
		"mesos_master_options={\"roles\": 'a\"b'}":           "with quotes or backslashes",
		"mesos_acls=[1]":                                     "must be a mapping",
		"mesos_source=preinstalled\nmesos_prefix=usr":        "not an absolute path",
		"mesos_source=package\nmesos_master_port=0":          "must be 1 to 65535",
		"mesos_source=package\nmesos_master_work_dir=/a/../": "not an absolute path",
	} {
		p := componenttest.Platform(t, inventory(1)+extra+"\n")
		part, problems := mesosmaster.New().Desired(p, componenttest.Node(t, p, "c1"))
		if part != nil || len(problems) == 0 {
			t.Errorf("%s: it is accepted", extra)
			continue
		}
		last := problems[len(problems)-1]
		if !last.Fatal || !strings.Contains(last.Message, want) || last.Advice == "" {
			t.Errorf("%s: got %+v, want %q", extra, problems, want)
		}
	}
}

// running are facts of masters that run with quorums, by node.
func running(p component.Platform, quorums map[string]int) {
	for node, q := range quorums {
		p.Facts[node].Files = map[string]facts.File{
			"/etc/mi-lb/mesos-master/environment": {Content: fmt.Sprintf("# x\nMESOS_CLUSTER=dc1\nMESOS_QUORUM=%d\n", q)},
		}
	}
}

func TestAChangeOfTheQuorumGoesStepByStepOrIsRefused(t *testing.T) {
	for _, c := range []struct {
		name    string
		masters int
		running map[string]int
		accept  bool
		// state of each master's unit, and the first problem that any has
		states  []desired.State
		problem string
		fatal   bool
		wipes   bool
	}{
		{name: "the first time", masters: 3, states: []desired.State{"running", "running", "running"}},
		{name: "no change", masters: 3, running: map[string]int{"c1": 2, "c2": 2, "c3": 2}, states: []desired.State{"running", "running", "running"}},
		{
			name: "three to five, first run", masters: 5, running: map[string]int{"c1": 2, "c2": 2, "c3": 2},
			states: []desired.State{"running", "running", "running", "stopped", "stopped"}, problem: "from a quorum of 2 to 3",
		},
		{
			name: "three to five, cut off", masters: 5, running: map[string]int{"c1": 3, "c2": 2, "c3": 2},
			states: []desired.State{"running", "running", "running", "stopped", "stopped"}, problem: "from a quorum of 2 to 3",
		},
		{
			name: "three to five, second run", masters: 5, running: map[string]int{"c1": 3, "c2": 3, "c3": 3},
			states: []desired.State{"running", "running", "running", "running", "running"},
		},
		{
			name: "five to three", masters: 3, running: map[string]int{"c1": 3, "c2": 3, "c3": 3},
			states: []desired.State{"running", "running", "running"}, problem: "the registry is damaged if more than 3",
		},
		{
			name: "one to three", masters: 3, running: map[string]int{"c1": 1},
			states: []desired.State{"running", "running", "running"}, problem: "cannot be carried over", fatal: true,
		},
		{
			name: "one to three, accepted", masters: 3, running: map[string]int{"c1": 1}, accept: true,
			states: []desired.State{"running", "running", "running"}, wipes: true,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			extra := "mesos_source=package\n"
			if c.accept {
				extra += "mesos_accept_registry_loss=yes\n"
			}
			p := componenttest.Platform(t, inventory(c.masters)+extra)
			running(p, c.running)
			master := mesosmaster.New()
			var problems []component.Problem
			for i, want := range c.states {
				n := componenttest.Node(t, p, fmt.Sprintf("c%d", i+1))
				part, _ := master.Desired(p, n)
				if part == nil {
					t.Fatalf("%s: no part", n.Name)
				}
				if got := part.Units[0].State; got != want {
					t.Errorf("%s is to be %s, want %s", n.Name, got, want)
				}
				wipes := false
				for _, f := range part.Files {
					wipes = wipes || strings.Contains(f.Then, "rm -rf /var/lib/mesos/master/replicated_log")
				}
				if wipes != c.wipes {
					t.Errorf("%s: the log is wiped: %v", n.Name, wipes)
				}
				problems = append(problems, master.(component.Checker).Check(p, n)...)
			}
			switch {
			case c.problem == "" && len(problems) > 0:
				t.Errorf("problems: %+v", problems)
			case c.problem != "" && (len(problems) == 0 || problems[0].Fatal != c.fatal || !strings.Contains(problems[0].Message, c.problem) || problems[0].Advice == ""):
				t.Errorf("problems: %+v, want %q", problems, c.problem)
			}
		})
	}
}
