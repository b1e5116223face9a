package marathon_test

import (
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/marathon"
)

const inventory = `
[dc=dc1]
c1 private_ipv4=10.1.0.1 zk_id=1
c2 private_ipv4=10.1.0.2 zk_id=2 public_ipv4=198.51.100.2
c3 private_ipv4=10.1.0.3 zk_id=3
[role=control]
c1
c2
c3
[all:vars]
`

func TestDesired(t *testing.T) {
	c := marathon.New()
	for name, extra := range map[string]string{
		"debian": "mesos_source=package\nmarathon_source=package\n", "redhat": "mesos_source=package\nmarathon_source=package\nmarathon_version=1.6.352-1.0.1\n",
		"file":          "mesos_file=/srv/mesos.tgz\nmarathon_file=/srv/marathon-1.11.24.tgz\nmarathon_java_package=openjdk-8-jre-headless\n",
		"image":         "mesos_image=mesosphere/mesos-master:1.7.0\nmarathon_image=mesosphere/marathon\nmarathon_version=v1.11.24\n",
		"preinstalled":  "mesos_source=preinstalled\nmarathon_source=preinstalled\nmarathon_program=/srv/marathon/bin/marathon\n",
		"other-address": "mesos_source=package\nmarathon_source=package\n",
		"everything-set": "mesos_source=package\nmarathon_source=package\nmarathon_http_port=18080\nmarathon_local_port_min=9000\nmarathon_local_port_max=9999\n" +
			"marathon_mesos_role=apps\nmarathon_framework_name=m2\nmarathon_features=task_killing,gpu_resources\nmarathon_java_opts=-Xmx2g\n" +
			"marathon_libmesos=/usr/local/lib/libmesos.so\nmarathon_work_dir=/srv/marathon\nmarathon_options={\"task_launch_timeout\": 600000, \"disable_zk_compression\": \"\"}\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.Platform(t, inventory+extra)
			node := "c1"
			switch name {
			case "redhat":
				p = componenttest.With(p, componenttest.RedHat)
			case "other-address":
				node = "c2"
			}
			part, problems := c.Desired(p, componenttest.Node(t, p, node))
			if part == nil || len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+name+".txt", componenttest.Render(p, part))
		})
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for extra, want := range map[string]string{
		"marathon_file=/srv/marathon.jar":                             "marathon_file is no archive",
		"marathon_java_opts='\"-Xmx1g'":                               "begin with no quote",
		"marathon_local_port_min=20000":                               "must be below marathon_local_port_max",
		"marathon_options={\"zk\": \"zk://x/y\"}":                     "mi-lb sets by itself",
		"marathon_options={\"http_credentials\": \"a:b\"}":            "mi-lb sets by itself",
		"marathon_source=package\nmesos_image=mesosphere/mesos:1.7.0": "Marathon needs libmesos on the node",
		"marathon_source=package\nmarathon_java_package=../x":         "not the name of a package",
	} {
		p := componenttest.Platform(t, inventory+extra+"\n")
		part, problems := marathon.New().Desired(p, componenttest.Node(t, p, "c1"))
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

func TestVersionsChangeStepByStep(t *testing.T) {
	for _, c := range []struct {
		installed, wanted, extra, want string
		fatal                          bool
	}{
		{"", "1.10.19", "", "", false},
		{"1.10.17", "1.10.19", "", "", false},
		{"1.9.109-1.0", "1.10.19", "", "there is no way back", false},
		{"1.8.222", "1.10.19", "", "from one minor version to the next only", true},
		{"1.11.24", "1.10.19", "", "cannot read what", true},
		{"1.11.24", "1.10.19", "marathon_allow_version_change=yes", "cannot read what", false},
		{"unknown", "1.10.19", "", "", false},
	} {
		p := componenttest.Platform(t, inventory+"marathon_source=package\nmarathon_version="+c.wanted+"\n"+c.extra+"\n")
		p.Facts["c1"].Packages = map[string]string{"marathon": c.installed}
		problems := marathon.New().(component.Checker).Check(p, componenttest.Node(t, p, "c1"))
		switch {
		case c.want == "" && len(problems) > 0, c.want != "" && (len(problems) != 1 || problems[0].Fatal != c.fatal || !strings.Contains(problems[0].Message, c.want)):
			t.Errorf("%s to %s: %+v", c.installed, c.wanted, problems)
		}
	}
}
