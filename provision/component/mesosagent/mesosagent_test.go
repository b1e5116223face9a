package mesosagent_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/mesosagent"
	"github.com/mi-lb/mi-lb/provision/facts"
)

const inventory = `
[dc=dc1]
c1 private_ipv4=10.1.0.1 zk_id=1
w1 private_ipv4=10.1.0.21
[role=control]
c1
[role=worker]
w1
[all:vars]
mesos_source=package
`

func cgroups(version int, of func(*cluster.Node) *facts.Facts) func(*cluster.Node) *facts.Facts {
	return func(n *cluster.Node) *facts.Facts {
		f := of(n)
		f.Cgroup = version
		return f
	}
}

func TestDesired(t *testing.T) {
	c := mesosagent.New()
	for _, test := range []struct {
		name, extra string
		facts       func(*cluster.Node) *facts.Facts
	}{
		{"debian", "", cgroups(2, componenttest.Debian)},
		{"redhat", "", cgroups(2, componenttest.RedHat)},
		{"cgroups-v1", "", cgroups(1, componenttest.Debian)},
		{"image", "mesos_source=image\nmesos_image=mesosphere/mesos-slave:1.7.0\n", cgroups(1, componenttest.Debian)},
		{
			"everything-set", "mesos_source=file\nmesos_file=/srv/mesos.tgz\nmesos_attributes=rack:2;zone:a\nmesos_resources=ports(*):[4000-5000, 31000-32000]\n" +
				"mesos_agent_port=15051\nmesos_agent_work_dir=/srv/agent\nmesos_agent_runtime_dir=/run/mesos\nmesos_docker_socket=/run/docker.sock\n" +
				"mesos_docker_config=/root/.docker/config.json\nmesos_agent_options={\"gc_delay\": \"2days\"}\n", cgroups(2, componenttest.Debian),
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := componenttest.With(componenttest.Platform(t, inventory+test.extra), test.facts)
			part, problems := c.Desired(p, componenttest.Node(t, p, "w1"))
			if part == nil || len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+test.name+".txt", componenttest.Render(p, part))
		})
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, extra, want string
		facts             func(*cluster.Node) *facts.Facts
	}{
		{"isolation of cgroups v1 on v2", `mesos_agent_options={"isolation": "cgroups/cpu"}`, "cgroups v2 only", cgroups(2, componenttest.Debian)},
		{"launcher of cgroups v1 on v2", `mesos_agent_options={"launcher": "linux"}`, "cgroups v2 only", cgroups(2, componenttest.Debian)},
		{"an image on v2", "mesos_source=image\nmesos_image=mesosphere/mesos-slave:1.7.0", "expect cgroups v1", cgroups(2, componenttest.Debian)},
		{"a backslash", `mesos_attributes='a:b\\\\c'`, "no backslashes", cgroups(2, componenttest.Debian)},
		{"own settings", `mesos_agent_options={"reconfiguration_policy": "equal"}`, "mi-lb sets by itself", cgroups(2, componenttest.Debian)},
	} {
		p := componenttest.With(componenttest.Platform(t, inventory+c.extra+"\n"), c.facts)
		_, problems := mesosagent.New().Desired(p, componenttest.Node(t, p, "w1"))
		if len(problems) == 0 || !problems[0].Fatal || !strings.Contains(problems[0].Message, c.want) || problems[0].Advice == "" {
			t.Errorf("%s: got %+v, want %q", c.name, problems, c.want)
		}
	}
	p := componenttest.Platform(t, inventory)
	p.Facts["w1"].Docker = &facts.Docker{Version: "31.0.0", API: "1.60", MinAPI: "1.46"}
	problems := mesosagent.New().(component.Checker).Check(p, componenttest.Node(t, p, "w1"))
	if len(problems) != 1 || !problems[0].Fatal || problems[0].Code != "docker-api" {
		t.Errorf("an engine without API 1.44: %+v", problems)
	}
}

func TestAttributesAndResources(t *testing.T) {
	for _, c := range []struct{ name, before, now, want string }{
		{"the same", "rack:2;zone:a", "rack:2;zone:a", ""},
		{"in another order", "rack:2;zone:a", "zone:a;rack:2", ""},
		{"one more", "rack:2", "rack:2;zone:a", ""},
		{"a number that grows", "rack:2", "rack:3", ""},
		{"a number that shrinks", "rack:3", "rack:2", "it becomes less"},
		{"another text", "zone:a", "zone:b", "must stay as it is"},
		{"one less", "rack:2;zone:a", "rack:2", "zone is removed"},
		{"more ports", "x:[1-5]", "x:[1-9]", ""},
		{"more ports that touch", "x:[1-9]", "x:[1-5,6-9]", ""},
		{"fewer ports", "x:[1-9]", "x:[1-5,7-9]", "1-9 is missing"},
		{"a set that grows", "x:{a,b}", "x:{a, b, c}", ""},
		{"a set that shrinks", "x:{a,b}", "x:{a}", "b is missing"},
	} {
		for _, allow := range []bool{false, true} {
			extra := "mesos_attributes=" + c.now + "\n"
			if allow {
				extra += "mesos_allow_agent_reset=yes\n"
			}
			p := componenttest.Platform(t, inventory+extra)
			p.Facts["w1"].Files = map[string]facts.File{
				"/etc/mi-lb/mesos-agent/environment": {Content: "MESOS_HOSTNAME=10.1.0.21\nMESOS_PORT=5051\nMESOS_ATTRIBUTES=" + c.before + "\n"},
			}
			problems := mesosagent.New().(component.Checker).Check(p, componenttest.Node(t, p, "w1"))
			switch {
			case c.want == "" && len(problems) > 0:
				t.Errorf("%s: %+v", c.name, problems)
			case c.want != "" && (len(problems) != 1 || problems[0].Fatal == allow || !strings.Contains(problems[0].Message, c.want)):
				t.Errorf("%s, allowed %v: %+v, want %q", c.name, allow, problems, c.want)
			}
		}
	}
	p := componenttest.Platform(t, inventory)
	p.Facts["w1"].Files = map[string]facts.File{"/etc/mi-lb/mesos-agent/environment": {Content: "MESOS_HOSTNAME=10.1.0.99\nMESOS_ATTRIBUTES=dc:dc1;node_id:w1\n"}}
	if problems := mesosagent.New().(component.Checker).Check(p, componenttest.Node(t, p, "w1")); len(problems) != 1 || !strings.Contains(problems[0].Message, "MESOS_HOSTNAME changes") {
		t.Errorf("another address: %+v", problems)
	}
}

func TestTheVersionOfDockersAPIFollowsTheEngine(t *testing.T) {
	p := componenttest.Platform(t, inventory)
	part, _ := mesosagent.New().Desired(p, componenttest.Node(t, p, "w1"))
	dir := t.TempDir()
	script := filepath.Join(dir, "docker-api")
	for _, f := range part.Files {
		if filepath.Base(f.Path) == "docker-api" {
			if err := os.WriteFile(script, []byte(f.Content), f.Mode); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct{ api, least, want, fails string }{
		{"1.41", "1.12", "", ""},
		{"1.44", "1.24", "", ""},
		{"1.45", "1.24", "DOCKER_API_VERSION=1.44\n", ""},
		{"1.52", "1.44", "DOCKER_API_VERSION=1.44\n", ""},
		{"1.60", "1.46", "", "speaks no API older than 1.46"},
		{"", "", "", "does not answer"},
	} {
		docker := "#!/bin/sh\necho " + c.api + " " + c.least + "\n"
		if c.api == "" {
			docker = "#!/bin/sh\nexit 1\n"
		}
		if err := os.WriteFile(filepath.Join(dir, "docker"), []byte(docker), 0o755); err != nil {
			t.Fatal(err)
		}
		command := exec.Command(script, "/var/run/docker.sock", filepath.Join(dir, "env"))
		command.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
		out, err := command.CombinedOutput()
		got, _ := os.ReadFile(filepath.Join(dir, "env"))
		switch {
		case c.fails == "" && (err != nil || string(got) != c.want):
			t.Errorf("%s: %q, %v: %s", c.api, got, err, out)
		case c.fails != "" && (err == nil || !strings.Contains(string(out), c.fails)):
			t.Errorf("%s: %v: %s", c.api, err, out)
		}
	}
}
