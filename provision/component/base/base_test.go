package base_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/base"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

func platform(t *testing.T, variables string) component.Platform {
	t.Helper()
	return componenttest.Platform(t, "[dc=dc1]\na private_ipv4=10.0.0.1\n[consul_servers]\na\n[all:vars]\n"+variables)
}

func part(t *testing.T, p component.Platform) *desired.Part {
	t.Helper()
	got, problems := base.New().Desired(p, componenttest.Node(t, p, "a"))
	if len(problems) > 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return got
}

func unsynchronized(of func(*cluster.Node) *facts.Facts) func(*cluster.Node) *facts.Facts {
	return func(n *cluster.Node) *facts.Facts {
		f, no := of(n), false
		f.Synchronized = &no
		return f
	}
}

func TestGolden(t *testing.T) {
	for name, c := range map[string]struct {
		variables string
		facts     func(*cluster.Node) *facts.Facts
	}{
		"debian":              {"", componenttest.Debian},
		"redhat":              {"", componenttest.RedHat},
		"debian-without-time": {"", unsynchronized(componenttest.Debian)},
		"redhat-time-servers": {"base_time_servers=['10.0.0.250','ntp.example.com']\nbase_packages=['jq','tar']\nbase_sysctl={'vm.swappiness': 10, 'net/core/rmem_max': 1}", componenttest.RedHat},
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.With(platform(t, c.variables), c.facts)
			componenttest.Golden(t, "testdata/"+name+".golden", componenttest.Render(p, part(t, p)))
		})
	}
}

func TestAClockThatSomethingKeepsRightIsLeftAlone(t *testing.T) {
	p := componenttest.With(platform(t, ""), func(n *cluster.Node) *facts.Facts {
		f := unsynchronized(componenttest.Debian)(n)
		f.Listeners = []facts.Listener{{Network: "udp", Process: "ntpd", Unit: "ntp.service"}}
		return f
	})
	if got := part(t, p).Units; len(got) != 0 {
		t.Errorf("units: %+v", got)
	}
}

func TestWhatCannotBeUsedIsAProblem(t *testing.T) {
	for variables, want := range map[string]string{
		"base_sysctl={'a b': 1}":                   "hosts:6: base_sysctl has a b = 1, which is no setting",
		"base_packages=['x; rm']":                  "base_packages has \"x; rm\"",
		"base_time=ntp":                            "base_time is \"ntp\", which is none of",
		"base_time_servers=['a b']":                "base_time_servers has \"a b\"",
		"base_journal_size=much":                   "base_journal_size is \"much\"",
		"base_nofile=1":                            "base_nofile is 1, and must be",
		"base_sysctl={'kernel.core_pattern': '`'}": "base_sysctl has",
	} {
		p := platform(t, variables)
		got, problems := base.New().Desired(p, componenttest.Node(t, p, "a"))
		if got != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) {
			t.Errorf("%s: %+v", variables, problems)
		}
	}
	p := platform(t, "")
	p.Facts["a"].System.Family = "arch"
	if got, problems := base.New().Desired(p, componenttest.Node(t, p, "a")); got != nil || problems[0].Code != "system" {
		t.Errorf("%+v", problems)
	}
	delete(p.Facts, "a")
	if got, problems := base.New().Desired(p, componenttest.Node(t, p, "a")); got != nil || problems[0].Code != "no-facts" || problems[0].Fatal {
		t.Errorf("%+v", problems)
	}
}

func TestHealthyIsACertificateThatIsGoodByTheMachinesClock(t *testing.T) {
	dir := t.TempDir()
	p := platform(t, "tls_dir="+dir)
	n := componenttest.Node(t, p, "a")
	hosts := componenttest.Here(t, p)
	if err := base.New().Healthy(t.Context(), p, n, hosts); err == nil || !strings.Contains(err.Error(), "No such file") {
		t.Errorf("without files: %v", err)
	}
	want := part(t, p)
	var tls desired.Part
	for _, f := range want.Files {
		if filepath.Dir(f.Path) == dir {
			tls.Files = append(tls.Files, f)
		}
	}
	if len(tls.Files) != 3 {
		t.Fatalf("files: %+v", tls.Files)
	}
	componenttest.Install(t, &tls, dir)
	if err := base.New().Healthy(t.Context(), p, n, hosts); err != nil {
		t.Errorf("with its certificate: %v", err)
	}
	other := platform(t, "")
	if err := os.WriteFile(base.TLSFiles(n).CA, []byte(other.Secrets.TrustedCertificates()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := base.New().Healthy(t.Context(), p, n, hosts); err == nil || !strings.Contains(err.Error(), "unknown authority") {
		t.Errorf("with another authority: %v", err)
	}
	if err := base.New().Healthy(t.Context(), p, n, hosts.Without("a")); err == nil {
		t.Error("without the machine it is healthy")
	}
}
