package consul_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/consul"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	consultest "github.com/mi-lb/mi-lb/test/consul"
)

const two = `[dc=dc1]
a private_ipv4=10.0.1.1 public_ipv4=203.0.113.1
b private_ipv4=10.0.1.2
c private_ipv4=10.0.1.3
w private_ipv4=10.0.1.9
[dc=dc2]
x private_ipv4=10.0.2.1
[consul_servers]
a
b
c
x
[consul_clients]
w
[all:vars]
`

func partOf(t *testing.T, p component.Platform, name string) *desired.Part {
	t.Helper()
	n := componenttest.Node(t, p, name)
	part, problems := of(n).Desired(p, n)
	if len(problems) > 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return part
}

func of(n *cluster.Node) component.Component {
	if n.Has(cluster.ConsulServer) {
		return consul.NewServer()
	}
	return consul.NewClient()
}

func binary(t *testing.T) string {
	t.Helper()
	path, err := consultest.Binary(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if path, err = filepath.Abs(path); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestGolden(t *testing.T) {
	file := "consul_file=/srv/artefacts/consul_1.22.5_linux_amd64.zip\nconsul_version=\"1.22.5\"\n"
	for name, c := range map[string]struct {
		variables, node string
		facts           func(*cluster.Node) *facts.Facts
	}{
		"debian-server":           {file, "a", componenttest.Debian},
		"debian-client":           {file, "w", componenttest.Debian},
		"debian-server-secondary": {file, "x", componenttest.Debian},
		"redhat-server-1.12": {"consul_source=package\nconsul_version=\"1.12.3\"\nconsul_https=yes\nconsul_config={'limits': {'rpc_rate': 10}, 'log_json': True}\nconsul_port_serf_wan=18302\n", "a", func(n *cluster.Node) *facts.Facts {
			f := componenttest.RedHat(n)
			f.System.Systemd = 239
			return f
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.With(componenttest.Platform(t, two+c.variables), c.facts)
			part := partOf(t, p, c.node)
			componenttest.Golden(t, "testdata/"+name+".golden", componenttest.Render(p, part))
			validate(t, part)
		})
	}
}

// validate has the real Consul read all configuration files of a part.
func validate(t *testing.T, part *desired.Part) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range part.Files {
		if strings.HasSuffix(f.Path, ".json") {
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(f.Path)), []byte(f.Bytes()), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), binary(t), "validate", dir).CombinedOutput()
	if err != nil || strings.Contains(strings.ToLower(string(out)), "deprecat") {
		t.Errorf("consul validate: %v\n%s", err, out)
	}
	for _, f := range part.Files {
		if f.Check == "" {
			continue
		}
		_, arguments, _ := strings.Cut(f.Check, "' ")
		arguments = strings.ReplaceAll(arguments, filepath.Dir(f.Path)+"/", dir+"/")
		line := binary(t) + " " + strings.ReplaceAll(arguments, "%s", filepath.Join(dir, filepath.Base(f.Path)))
		if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, out)
		}
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for variables, want := range map[string]string{
		"": "does not say where Consul comes from",
		"consul_file=/c\nconsul_version=\"1.8.7\"":        "older than 1.12",
		"consul_image=consul":                             "cannot be installed as image",
		"consul_file=/c\nconsul_config={'acl': {}}":       `the key "acl"`,
		"consul_file=/c\nconsul_client_addr=here":         "is not an IP address",
		"consul_file=/c\nconsul_data_dir=/var/lib/a$b":    "not an absolute path",
		"consul_file=/c\nconsul_user='a b'":               "not the name of a user",
		"consul_file=/c\nconsul_raft_multiplier=11":       "must be 1 to 10",
		"consul_file=/c\nconsul_log_level=loud":           "none of trace",
		"consul_file=/c\nconsul_config='x'":               "must be a mapping",
		"consul_file=/c\nconsul_port_http=http":           "must be a whole number",
		"consul_file=/c\nconsul_http_max_connections=one": "must be a whole number",
	} {
		p := componenttest.Platform(t, two+variables+"\n")
		n := componenttest.Node(t, p, "a")
		part, problems := consul.NewServer().Desired(p, n)
		if part != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) || problems[0].Advice == "" {
			t.Errorf("%s: %+v", variables, problems)
		}
	}
}

func TestWhatChangesRestartsOnlyWhereItMust(t *testing.T) {
	base := two + "consul_file=/c\n"
	p := componenttest.Platform(t, base)
	effect := func(t *testing.T, change func(*component.Platform), node string) (restarts, reloads bool, files []string) {
		before := partOf(t, p, node)
		q := p
		change(&q)
		for i, f := range partOf(t, q, node).Files {
			if f.Bytes() != before.Files[i].Bytes() {
				files = append(files, filepath.Base(f.Path))
				restarts = restarts || len(f.Restarts) > 0
				reloads = reloads || len(f.Reloads) > 0
			}
		}
		return restarts, reloads, files
	}
	other := func(text string) func(*component.Platform) {
		return func(q *component.Platform) {
			changed := componenttest.Platform(t, text)
			q.Cluster, q.Facts = changed.Cluster, changed.Facts
		}
	}
	for name, c := range map[string]struct {
		change            func(*component.Platform)
		node              string
		restarts, reloads bool
		files             string
	}{
		"a level of logs":           {other(base + "consul_log_level=debug\n"), "a", false, true, "reload.json"},
		"a limit of connections":    {other(base + "consul_http_max_connections=900\n"), "w", false, true, "reload.json"},
		"a limit that is read once": {other(base + "consul_config={'limits': {'https_handshake_timeout': '9s'}}\n"), "a", true, false, "consul.json"},
		"further keys of both":      {other(base + "consul_config={'limits': {'rpc_rate': 9}, 'node_meta': {'a': 'b'}, 'log_json': True}\n"), "a", true, true, "consul.json reload.json"},
		"fewer servers":             {other(strings.NewReplacer("b\n", "", "c\n", "").Replace(base)), "a", false, false, "start.json"},
		"fewer servers, to clients": {other(strings.NewReplacer("b\n", "", "c\n", "").Replace(base)), "w", false, false, "start.json"},
		"another datacenter gone":   {other(strings.NewReplacer("[dc=dc2]\nx private_ipv4=10.0.2.1\n", "", "x\n", "").Replace(base)), "a", false, false, "start.json"},
		"new certificates": {func(q *component.Platform) {
			q.Secrets = componenttest.Platform(t, base).Secrets
			for _, name := range p.Secrets.Names() {
				if !strings.HasPrefix(name, "pki/") {
					if err := q.Secrets.Set(name, p.Secrets.Get(name)); err != nil {
						t.Fatal(err)
					}
				}
			}
		}, "a", false, true, "ca.pem node.pem node-key.pem"},
	} {
		restarts, reloads, files := effect(t, c.change, c.node)
		if restarts != c.restarts || reloads != c.reloads || strings.Join(files, " ") != c.files {
			t.Errorf("%s: restarts %v, reloads %v, files %v", name, restarts, reloads, files)
		}
	}
}

func TestSecretsAreOnlyInFilesThatNobodyIsShown(t *testing.T) {
	p := componenttest.Platform(t, two+"consul_file=/c\n")
	for _, n := range p.Cluster.Nodes() {
		part := partOf(t, p, n.Name)
		shown, err := json.Marshal(part)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range p.Secrets.Names() {
			if strings.HasSuffix(name, "/accessor") || strings.HasSuffix(name, "/certificate") || name == "pki/issuer" {
				continue
			}
			if strings.Contains(string(shown), p.Secrets.Get(name).Reveal()) {
				t.Errorf("%s: %s is shown", n.Name, name)
			}
		}
		for _, f := range part.Files {
			if f.Mode.Perm()&0o007 != 0 {
				t.Errorf("%s is for everybody", f.Path)
			}
		}
	}
}
