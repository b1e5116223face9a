package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"
	"go.yaml.in/yaml/v3"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// evil are texts that mean something to whatever might read them unquoted.
var evil = []string{
	"x\n    server evil 127.0.0.1:1\nbackend evil\n",
	"x\r\nfrontend evil\r\n    bind :1\r\n",
	`x" 'y`, `'; quit; '`, "%[src]", "%{+Q}o", "${HOME}", "$HOME", "x y  z", "#x", `x\`, "x\x00y", "x;y", "<<", "@1 reload",
	strings.Repeat("x", 10_000), strings.Repeat("x ", 5_000), "\xff\xfe\xfd", "é☃\u2028x", "../../etc/passwd",
}

// evilWishes are all keys that do not withhold a service, with the text as value.
func evilWishes(text string) []string {
	var tags []string
	for _, key := range routing.Vocabulary() {
		if !slices.Contains([]string{"enable", "auth", "allow", "service"}, key) {
			tags = append(tags, "mi-lb."+key+"="+text)
		}
	}
	return append(tags, text, "mi-lb."+text+"=x", "mi-lb.host=x.example.com,"+text, "urlprefix-"+text, "urlprefix-x.example.com/"+text)
}

func TestEvilInputGetsFindingsAndNothingElse(t *testing.T) {
	t.Parallel()
	agent := startConsul(t, consul.Options{})
	cluster := startMarathon(t, marathon.Options{Fake: true})
	file := filepath.Join(t.TempDir(), "services.yaml")
	port := edge.FreePort(t)
	inConsul, inMarathon, inFile := edge.StartBackend(t, "consul"), edge.StartBackend(t, "marathon"), edge.StartBackend(t, "file")
	register(t, agent, "good-consul", inConsul)
	good := document(t, "/good-marathon", port, labels("mi-lb.mode", "http"))
	putApp(t, cluster, good, inMarathon)
	services := []any{map[string]any{"name": "good-file", "instances": []any{map[string]any{"address": inFile.Address()}}}}
	writeYAML(t, file, map[string]any{"services": services})
	e := startEdge(t, edge.Options{
		Consul: "http://" + agent.HTTPAddress(), Marathon: [][]string{cluster.URLs()}, Config: map[string]any{"file": file},
	})
	e.WaitPort(port, "marathon")
	loads := []*edge.Load{e.Load("good-consul.test"), e.Load("good-marathon.test"), e.Load("good-file.test"), loadPort(t, port)}
	before := sections(t, string(e.Ask("/_haproxy_getconfig")))

	// Every text, in every place of every source that takes it.
	victim := edge.StartBackend(t, "victim")
	names, accepted := registerEvil(t, agent, victim), 0
	accepted += len(names)
	names = append(names, evilApps(t, cluster, good, inMarathon)...)
	for i, text := range evil {
		name := fmt.Sprintf("evil-file-%d", i)
		text = strings.ToValidUTF8(text, "\x7f") // no YAML has anything else
		names = append(names, name)
		meta := map[string]any{text: "x", "mi-lb.check.path": "/" + text, "mi-lb.timeout.server": text, "mi-lb." + text: text}
		for _, service := range []string{name, text} {
			services = append(services, map[string]any{"name": service, "tags": evilWishes(text), "meta": meta, "instances": []any{
				map[string]any{"address": victim.Address(), "id": text, "node": text},
			}})
		}
	}
	writeYAML(t, file, map[string]any{"services": services})

	if accepted == 0 {
		t.Error("Consul accepted nothing of it")
	}
	edge.Wait(t, "a finding about each", func() error {
		missing := map[string]bool{}
		for _, name := range names {
			missing[name] = true
		}
		for _, f := range e.Findings() {
			if f.Code == "invalid-value" {
				delete(missing, f.Service)
			}
		}
		if len(missing) > 0 {
			return fmt.Errorf("none about %v; sources %+v", slices.Sorted(maps.Keys(missing)), e.Sources())
		}
		return nil
	})
	edge.Wait(t, "HAProxy runs it", func() error {
		if s := e.Status().HAProxy; s.Pending != "" || len(s.Quarantined) > 0 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	for _, load := range loads {
		load.WaitMore(50)
	}
	for _, source := range e.Sources() {
		if source.Status != "current" {
			t.Errorf("a source is %+v", source)
		}
	}
	checkNothingEvil(t, e, before)
	for _, load := range loads {
		load.Stop()
	}
	// All of it in print, too.
	for _, path := range []string{"/", "/v1/findings", "/v1/routes", "/metrics", "/_haproxy_getvhostmap"} {
		e.Ask(path)
	}
}

// registerEvil puts services with every text into Consul, as far as it takes them, and
// names those that it took and that must have findings.
func registerEvil(t *testing.T, agent *consul.Agent, b *edge.Backend) []string {
	t.Helper()
	var names []string
	for i, text := range evil {
		name := fmt.Sprintf("evil-consul-%d", i)
		tags, meta := evilWishes(text), map[string]string{}
		if len(text) < 512 {
			for _, key := range routing.Vocabulary() {
				if !slices.Contains([]string{"enable", "auth", "allow", "service"}, key) {
					meta["mi-lb-"+strings.ReplaceAll(key, ".", "-")] = text
				}
			}
		}
		// Both at once: a change of the catalog is a reload each.
		ops := api.TxnOps{{Node: &api.NodeTxnOp{Verb: api.NodeSet, Node: api.Node{Node: "evil", Address: "127.0.0.1"}}}}
		for _, service := range []string{name, text} {
			ops = append(ops, &api.TxnOp{Service: &api.ServiceTxnOp{Verb: api.ServiceSet, Node: "evil", Service: api.AgentService{
				ID: text + service, Service: service, Address: "127.0.0.1", Port: b.Port, Tags: tags, Meta: meta,
			}}})
		}
		for len(ops) > 1 {
			ok, _, _, err := agent.Client().Txn().Txn(ops, (&api.QueryOptions{}).WithContext(testContext(t)))
			if err == nil && ok {
				names = append(names, name)
				break
			}
			ops = ops[:len(ops)-1] // without the one of that name
		}
	}
	return names
}

// evilApps makes the cluster say that it runs apps with every text in every field,
// beside the good one. Marathon itself would refuse some of them.
func evilApps(t *testing.T, cluster *marathon.Cluster, good []byte, b *edge.Backend) []string {
	t.Helper()
	var whole map[string]any
	if err := json.Unmarshal(good, &whole); err != nil {
		t.Fatal(err)
	}
	whole["version"] = "2020-01-01T00:00:00.000Z"
	task := tasksOn(b)[0]
	whole["tasks"] = []any{map[string]any{
		"id": task.ID, "appId": whole["id"], "host": "127.0.0.1", "ports": task.Ports, "state": "TASK_RUNNING", "startedAt": "2020-01-01T00:00:00.000Z",
	}}
	apps := []any{whole}
	var names []string
	for i, text := range evil {
		name := fmt.Sprintf("evil-marathon-%d", i)
		names = append(names, name)
		wishes := map[string]string{text: text, "HAPROXY_GROUP": text, "HAPROXY_0_" + text: text, "HAPROXY_0_BACKEND_HEAD": text, "HAPROXY_0_HTTP_FRONTEND_ACL": text}
		for _, tag := range evilWishes(text) {
			key, value, _ := strings.Cut(tag, "=")
			wishes[key] = value
		}
		for _, key := range []string{"VHOST", "PATH", "PORT", "MODE", "BALANCE", "STICKY"} {
			wishes["HAPROXY_0_"+key] = text
		}
		for _, id := range []string{"/" + name, "/" + text} {
			apps = append(apps, map[string]any{
				"id": id, "version": text, "labels": wishes, "env": map[string]string{"SERVICE_NAME": text, "SERVICE_80_NAME": text},
				"container":    map[string]any{"docker": map[string]any{"image": text, "network": text}},
				"ports":        []any{0, text, -1},
				"healthChecks": []any{map[string]any{"protocol": text, "path": text, "portIndex": 0}, map[string]any{"protocol": "HTTP", "path": "/" + text, "portIndex": 0}},
				"tasks": []any{map[string]any{
					"id": text, "host": text, "ports": []any{1, text}, "state": text, "startedAt": text, "ipAddresses": []any{map[string]any{"ipAddress": text}},
				}},
			})
		}
	}
	body, err := json.Marshal(map[string]any{"apps": apps})
	if err != nil {
		t.Fatal(err)
	}
	// What JSON cannot hold, a broken program can still send.
	raw := strings.ReplaceAll(string(body), `\ufffd`, "\xff")
	if _, err := cluster.Inject(marathon.Fault{Kind: marathon.FaultStatus, Status: 200, Path: "/v2/apps", Body: raw}); err != nil {
		t.Fatal(err)
	}
	cluster.CloseStreams()
	return names
}

func writeYAML(t *testing.T, path string, value any) {
	t.Helper()
	text, err := yaml.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

var (
	sectionLine = regexp.MustCompile(`^(global|defaults(?: mi-lb\S*)?(?: from mi-lb)?|(?:frontend|backend|listen|peers|resolvers|userlist|program|cache|mailers|ring|http-errors|fcgi-app|crt-store|log-forward)\b.*)$`)
	// numberLine changes with every reload.
	numberLine = regexp.MustCompile(`(?m)^\s*description .*$`)
)

// sections are those of a configuration, by their first lines, without comments.
func sections(t *testing.T, configuration string) map[string][]string {
	t.Helper()
	all := map[string][]string{}
	in := ""
	for line := range strings.Lines(numberLine.ReplaceAllString(configuration, "")) {
		line = strings.TrimRight(line, "\n")
		switch {
		case strings.TrimSpace(line) == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case sectionLine.MatchString(line):
			if in = line; all[in] != nil {
				t.Errorf("two sections %q", line)
			}
			all[in] = []string{}
		case !strings.HasPrefix(line, "    "):
			t.Errorf("a line that is no section's: %q", line)
		default:
			all[in] = append(all[in], strings.TrimSpace(line))
		}
	}
	return all
}

// What the backend of a service can have.
const (
	namePattern     = `[A-Za-z0-9_.:-]+`
	durationPattern = `\d+(ms|s|h)`
	pathPattern     = `'?/[A-Za-z0-9/._~!&()*+,;=:@%-]*'?`
)

var backendLine = regexp.MustCompile(`^(` + strings.Join([]string{
	`mode tcp`,
	`balance (roundrobin|static-rr|leastconn|first|source|random(\(\d+\))?|uri|hdr\([\w-]+\)|url_param [\w-]+)`,
	`hash-type consistent`,
	`cookie mi-lb insert indirect nocache httponly dynamic`, `dynamic-cookie-key '[0-9a-f]+'`,
	`stick-table type ipv6 size 100k expire 30m`, `stick on src`,
	`timeout (connect|server|tunnel|check) ` + durationPattern,
	`option httpchk`, `http-check send meth GET uri ` + pathPattern + ` ver HTTP/1\.1 hdr Host ` + namePattern, `http-check expect status 200-399`,
	`http-request set-path %\[path,bytes\(\d+\)\] if \{ path -m beg ` + pathPattern + ` \}`, `http-request set-path / if \{ path -m str ` + pathPattern + ` \}`,
	`server ` + namePattern + ` [0-9.]+:\d+ weight \d+( backup)?( maxconn \d+)?( check( port \d+)?( check-ssl verify none)? inter ` + durationPattern +
		` fastinter ` + durationPattern + ` downinter ` + durationPattern + ` rise \d+ fall \d+ observe layer4 error-limit \d+ on-error mark-down)?( disabled)?`,
}, `|`) + `)$`)

var (
	backendSection = regexp.MustCompile(`^backend ` + namePattern + `$`)
	mapRow         = regexp.MustCompile(`^[!-~]+ ` + namePattern + `$`)
)

// ofService says whether a section is what a service can change.
func ofService(section string) bool {
	return strings.HasPrefix(section, "backend ") && section != "backend mi-lb:next-worker"
}

// checkNothingEvil fails the test if HAProxy's files have anything but the sections of
// before, backends, and rows that lead to them.
func checkNothingEvil(t *testing.T, e *edge.Edge, before map[string][]string) {
	t.Helper()
	now := sections(t, string(e.Ask("/_haproxy_getconfig")))
	for name, lines := range before {
		if !slices.Equal(now[name], lines) && !ofService(name) {
			t.Errorf("section %q was\n%s\nand is\n%s", name, strings.Join(lines, "\n"), strings.Join(now[name], "\n"))
		}
	}
	for name, lines := range now {
		if _, known := before[name]; known && !ofService(name) {
			continue
		}
		if !backendSection.MatchString(name) {
			t.Errorf("a section %q that does not belong there", name)
		}
		for _, line := range lines {
			if !backendLine.MatchString(line) {
				t.Errorf("in %q, a line that does not belong there: %q", name, line)
			}
		}
	}
	current := filepath.Join(e.StateDir, "haproxy", "current")
	files, err := filepath.Glob(current + "/*.map")
	if err != nil || len(files) == 0 {
		t.Fatalf("no maps: %v", err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSuffix(line, "\n"); line != "" && !mapRow.MatchString(line) {
				t.Errorf("%s has a row %q", path, line)
			} else if _, backend, _ := strings.Cut(line, " "); line != "" && now["backend "+backend] == nil {
				t.Errorf("%s has a row that leads nowhere: %q", path, line)
			}
		}
	}
	if output, err := exec.CommandContext(t.Context(), "haproxy", "-c", "-f", filepath.Join(current, "haproxy.cfg")).CombinedOutput(); err != nil {
		t.Errorf("haproxy -c: %v\n%s", err, output)
	}
}
