package registrator_test

import (
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/registrator"
)

const inventory = `
[dc=dc1]
c1 private_ipv4=10.1.0.1
w1 private_ipv4=10.1.0.5
[role=control]
c1
[role=worker]
w1
[all:vars]
`

func platform(t *testing.T, extra string) component.Platform {
	p := componenttest.Platform(t, inventory+extra)
	p.Program = "/usr/lib/mi-lb/mi-lb"
	return p
}

func TestDesired(t *testing.T) {
	c := registrator.New()
	for name, extra := range map[string]string{
		"debian": "", "redhat": "",
		"image": "registrator_image=gliderlabs/registrator\nregistrator_version=v7\n",
		"everything-set": "registrator_tags=a,b=c\nregistrator_marathon_names=no\nregistrator_explicit=yes\n" +
			"registrator_script_checks=yes\nregistrator_cleanup=no\nregistrator_resync=30\nregistrator_port=9999\n",
	} {
		t.Run(name, func(t *testing.T) {
			p := platform(t, extra)
			if name == "redhat" {
				p = componenttest.With(p, componenttest.RedHat)
			}
			part, problems := c.Desired(p, componenttest.Node(t, p, "w1"))
			if part == nil || len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+name+".txt", componenttest.Render(p, part))
		})
	}
	p := platform(t, "")
	if c.On(componenttest.Node(t, p, "c1")) {
		t.Error("it is on a node without containers")
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	for extra, want := range map[string]string{
		"registrator_tags=a b":           `tags have letters, digits`,
		"registrator_port=0":             "must be 1 to 65535",
		"registrator_source=package":     "registrator is the mi-lb program itself",
		"registrator_marathon_names=yep": "must be true or false",
	} {
		p := platform(t, extra+"\n")
		part, problems := registrator.New().Desired(p, componenttest.Node(t, p, "w1"))
		if part != nil || len(problems) == 0 || !problems[0].Fatal || !strings.Contains(problems[0].Message, want) || problems[0].Advice == "" {
			t.Errorf("%s: got %+v, want %q", extra, problems, want)
		}
	}
}
