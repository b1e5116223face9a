package docker_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/docker"
	"github.com/mi-lb/mi-lb/provision/facts"
	enginetest "github.com/mi-lb/mi-lb/test/docker"
)

const inventory = `[dc=dc1]
s private_ipv4=10.0.0.1
w private_ipv4=10.0.0.2
[role=control]
s
[role=worker]
w
[all:vars]
`

func TestGolden(t *testing.T) {
	key := `docker_repository_key="-----BEGIN PGP PUBLIC KEY BLOCK-----\nabc\n-----END PGP PUBLIC KEY BLOCK-----"` + "\n"
	for name, c := range map[string]struct {
		variables string
		facts     func(*cluster.Node) *facts.Facts
	}{
		"debian": {"", componenttest.Debian},
		"debian-13": {"docker_dns=['10.0.0.53']\ndocker_data_root=/data/docker\ndocker_config={'debug': True}\ndocker_registry_mirrors=['https://mirror.example.com']\n", func(n *cluster.Node) *facts.Facts {
			f := componenttest.Debian(n)
			f.System.Version = "13"
			return f
		}},
		"debian-ce":    {key + "docker_package=docker-ce\ndocker_version=\"5:25.0.5-1~debian.12~bookworm\"\ndocker_bridge=auto\n", componenttest.Debian},
		"redhat":       {"docker_repository=http://mirror.example.com/docker/\n", componenttest.RedHat},
		"preinstalled": {"docker_source=preinstalled\ndns=none\n", componenttest.RedHat},
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.With(componenttest.Platform(t, inventory+c.variables), c.facts)
			part, problems := docker.New().Desired(p, componenttest.Node(t, p, "w"))
			if len(problems) > 0 {
				t.Fatalf("problems: %+v", problems)
			}
			componenttest.Golden(t, "testdata/"+name+".golden", componenttest.Render(p, part))
		})
	}
}

func TestOnlyWhoRunsContainersHasIt(t *testing.T) {
	p := componenttest.Platform(t, inventory)
	if docker.New().On(componenttest.Node(t, p, "s")) || !docker.New().On(componenttest.Node(t, p, "w")) {
		t.Error("not where agents are")
	}
	p = componenttest.Platform(t, inventory+"marathon_image=mesosphere/marathon:v1.11.24\n")
	if !docker.New().On(componenttest.Node(t, p, "s")) {
		t.Error("not where Marathon is an image")
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for variables, want := range map[string]string{
		"docker_package=docker-ce":                     "whose key the inventory does not have",
		"docker_repository_key=abc":                    "is no public key",
		"docker_bridge=172.17.0.0/16":                  "is not an address and its network",
		"docker_config={'hosts': ['tcp://0.0.0.0']}":   `the key "hosts"`,
		"docker_dns=[dns]":                             "is not an IP address",
		"docker_image=docker":                          "cannot be installed as image",
		"docker_log_size=big":                          "docker_log_size is",
		"docker_insecure_registries=['a b']":           "no address of a registry",
		"docker_repository='https://x/ evil'":          "is not an http or https URL",
		"docker_live_restore=sometimes":                "must be true or false",
		"docker_data_root=/data/$(reboot)":             "not an absolute path",
		"docker_registry_mirrors={'a': 'b'}":           "must be a list",
		"docker_repository='ftp://download.docker.com": "is not an http or https URL",
	} {
		p := componenttest.Platform(t, inventory+variables+"\n")
		part, problems := docker.New().Desired(p, componenttest.Node(t, p, "w"))
		if part != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) || problems[0].Advice == "" {
			t.Errorf("%s: %+v", variables, problems)
		}
	}
}

func TestAMachineThatWouldNotWorkIsFound(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*facts.Facts)
		code   string
	}{
		"fresh": {func(*facts.Facts) {}, ""},
		"the bridge's network is taken": {func(f *facts.Facts) {
			f.Addresses["eth1"] = []netip.Prefix{netip.MustParsePrefix("172.17.9.1/24")}
		}, "docker-bridge"},
		"the bridge is there": {func(f *facts.Facts) {
			f.Addresses["docker0"] = []netip.Prefix{netip.MustParsePrefix("172.17.0.1/16")}
		}, ""},
		"an old engine":  {func(f *facts.Facts) { f.Docker = &facts.Docker{Version: "1.13", API: "1.26", MinAPI: "1.12"} }, "docker-api"},
		"Debian's":       {func(f *facts.Facts) { f.Docker = &facts.Docker{Version: "20.10.24", API: "1.41", MinAPI: "1.12"} }, ""},
		"a newer engine": {func(f *facts.Facts) { f.Docker = &facts.Docker{Version: "29.0.0", API: "1.52", MinAPI: "1.44"} }, ""},
	} {
		p := componenttest.Platform(t, inventory)
		c.change(p.Facts["w"])
		problems := docker.New().(component.Checker).Check(p, componenttest.Node(t, p, "w"))
		if c.code == "" && len(problems) > 0 || c.code != "" && (len(problems) != 1 || problems[0].Code != c.code || !problems[0].Fatal) {
			t.Errorf("%s: %+v", name, problems)
		}
	}
}

func TestConfigurationsAreComparedByMeaning(t *testing.T) {
	p := componenttest.Platform(t, inventory)
	part, _ := docker.New().Desired(p, componenttest.Node(t, p, "w"))
	f := part.Files[0]
	if !f.Same(strings.Join(strings.Fields(f.Content), ""), f.Content) {
		t.Error("other spaces are another meaning")
	}
	if f.Same("{}", f.Content) || f.Same("", f.Content) {
		t.Error("another content is the same")
	}
}

// TestARealEngineIsHealthyWithWhatIsRendered starts an engine with the rendered
// daemon.json, and asks it.
func TestARealEngineIsHealthyWithWhatIsRendered(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "daemon.json")
	start := func(variables string) (component.Platform, *cluster.Node, *enginetest.Engine) {
		p := componenttest.Platform(t, inventory+variables)
		part, problems := docker.New().Desired(p, componenttest.Node(t, p, "w"))
		if len(problems) > 0 {
			t.Fatalf("problems: %+v", problems)
		}
		if err := os.WriteFile(config, []byte(part.Files[0].Content), 0o600); err != nil {
			t.Fatal(err)
		}
		engine, err := enginetest.Start(t.Context(), enginetest.Options{Arguments: []string{"--config-file", config}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(engine.Stop)
		return p, componenttest.Node(t, p, "w"), engine
	}
	// The test's engine has a bridge of its own.
	const variables = "docker_bridge=auto\ndocker_dns=['10.0.0.53']\n"
	_, _, engine := start(variables)
	socket := "docker_socket=" + strings.TrimPrefix(engine.Host(), "unix://") + "\n"
	p := componenttest.Platform(t, inventory+variables+socket)
	n := componenttest.Node(t, p, "w")
	if err := docker.New().Healthy(t.Context(), p, n, componenttest.Here(t, p)); err != nil {
		t.Error(err)
	}
	other := componenttest.Platform(t, inventory+variables+socket+"docker_live_restore=no\n")
	if err := docker.New().Healthy(t.Context(), other, componenttest.Node(t, other, "w"), componenttest.Here(t, other)); err == nil || !strings.Contains(err.Error(), "has not read it") {
		t.Errorf("with other settings: %v", err)
	}
	engine.Stop()
	if err := docker.New().Healthy(t.Context(), p, n, componenttest.Here(t, p)); err == nil || !strings.Contains(err.Error(), "ask Docker") {
		t.Errorf("when it has ended: %v", err)
	}
}
