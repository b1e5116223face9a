package edge_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/edge"
	"github.com/mi-lb/mi-lb/provision/redact"
	binary "github.com/mi-lb/mi-lb/test/edge"
)

const twoDatacenters = `
[dc=dc1]
c1 private_ipv4=10.1.0.1 public_ipv4=198.51.100.1
c2 private_ipv4=10.1.0.2 public_ipv4=198.51.100.2
c3 private_ipv4=10.1.0.3 public_ipv4=198.51.100.3
e1 private_ipv4=10.1.0.9
e2 private_ipv4=10.1.0.10
[dc=dc2]
d1 private_ipv4=10.2.0.1
e3 private_ipv4=10.2.0.9
[role=control]
c1
c2
c3
d1
[role=edge]
e1
e2 haproxy_file=/srv/haproxy-2.8.tar.gz
e3
[all:vars]
domain=apps.example.com
`

func platform(t *testing.T, extra string) component.Platform {
	p := componenttest.Platform(t, twoDatacenters+extra)
	p.Program = "/usr/lib/mi-lb/mi-lb"
	return p
}

func TestDesired(t *testing.T) {
	c := edge.New()
	for _, test := range []struct{ name, node, extra string }{
		{"debian", "e1", ""},
		{"redhat", "e3", ""},
		{"haproxy-of-a-file", "e2", ""},
		{"everything-set", "e1", `
edge_http=0.0.0.0:8000,0.0.0.0:8001
edge_https=0.0.0.0:443
edge_certificates=/etc/mi-lb/certificates
edge_app_id=0.0.0.0:9091
edge_service_port_address=10.1.0.9
edge_service_port_range=10000-10100
edge_exposure=tagged
edge_locality=global
edge_balance=leastconn
edge_datacenters=dc1
edge_marathon_datacenters=dc1
edge_groups=public
edge_marathon_groups=external
edge_admin_port=9099
edge_maxconn=5000
edge_threads=2
edge_config={"haproxy": {"drain": "10s"}, "log": {"format": "json"}}
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := platform(t, test.extra)
			if test.name == "redhat" {
				p = componenttest.With(p, componenttest.RedHat)
			}
			n := componenttest.Node(t, p, test.node)
			if !c.On(n) {
				t.Fatal("it is no edge")
			}
			part, problems := c.Desired(p, n)
			if part == nil || len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+test.name+".txt", componenttest.Render(p, part))
		})
	}
	p := platform(t, "")
	if c.On(componenttest.Node(t, p, "c1")) {
		t.Error("a control node is an edge")
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for extra, want := range map[string]string{
		"edge_http=80":                        `edge_http has "80", which is not an address and port`,
		"edge_locality=nearest":               "none of local-first, global, local-only",
		"edge_datacenters=dc9":                `"dc9", which is no datacenter of the inventory`,
		"edge_service_port_range=10000":       "not a range of ports",
		"edge_service_port_address=localhost": "not an address",
		"edge_config=[1]":                     "must be a mapping",
		"haproxy_source=image":                "haproxy_source is image",
	} {
		p := platform(t, extra+"\n")
		part, problems := edge.New().Desired(p, componenttest.Node(t, p, "e1"))
		if part != nil || len(problems) == 0 || !problems[0].Fatal || !strings.Contains(problems[0].Message, want) || problems[0].Advice == "" {
			t.Errorf("%s: got %+v, want %q", extra, problems, want)
		}
	}
}

func TestMiLBAcceptsItsConfiguration(t *testing.T) {
	program, err := binary.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	haproxy, err := exec.LookPath("haproxy")
	if err != nil {
		if haproxy, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
			t.Fatal(err)
		}
	}
	p := platform(t, "")
	part, problems := edge.New().Desired(p, componenttest.Node(t, p, "e1"))
	if part == nil {
		t.Fatal(problems)
	}
	root := t.TempDir()
	here := strings.NewReplacer("/etc/mi-lb", root+"/etc", "/var/lib/mi-lb", root+"/state", "/usr/sbin/haproxy", haproxy, "/usr/bin/mi-lb", program)
	for i := range part.Directories {
		part.Directories[i].Path = here.Replace(part.Directories[i].Path)
	}
	for i := range part.Files {
		f := &part.Files[i]
		f.Path, f.Content, f.Check = here.Replace(f.Path), here.Replace(f.Content), here.Replace(f.Check)
		if !f.Secret.IsEmpty() {
			f.Secret = redact.New(f.Secret.Reveal())
		}
	}
	changed := componenttest.Install(t, part, root)
	if len(changed) != len(part.Files) {
		t.Errorf("changed %v", changed)
	}
	if _, err := os.Stat(filepath.Join(root, "etc/mi-lb.yaml")); err != nil {
		t.Error(err)
	}
}
