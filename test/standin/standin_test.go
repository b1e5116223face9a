package standin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/marathon"
	"github.com/mi-lb/mi-lb/provision/component/mesosagent"
	"github.com/mi-lb/mi-lb/provision/component/mesosmaster"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/test/docker"
	"github.com/mi-lb/mi-lb/test/standin"
)

// world is a datacenter on this machine: a real ZooKeeper, a real Docker, and the
// stand-ins with what the components render for the real programs.
type world struct {
	t         *testing.T
	platform  component.Platform
	hosts     componenttest.Hosts
	root      string
	programs  standin.Programs
	engine    *docker.Engine
	processes map[string]*componenttest.Process
}

const masters = 3

func newWorld(t *testing.T, extra string) *world {
	t.Helper()
	w := &world{t: t, root: t.TempDir(), processes: map[string]*componenttest.Process{}}
	bin := filepath.Join(w.root, "bin")
	var err error
	if w.programs, err = standin.Build(t.Context(), bin); err != nil {
		t.Fatal(err)
	}
	if w.engine, err = docker.Start(t.Context(), docker.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.engine.Stop)
	var addresses []string
	for i := range masters + 1 {
		addresses = append(addresses, fmt.Sprintf("127.0.9.%d", i+1))
	}
	ports := componenttest.Ports(t, 6, addresses...)
	var b strings.Builder
	b.WriteString("[dc=dc1]\n")
	for i, a := range addresses {
		fmt.Fprintf(&b, "n%d private_ipv4=%s zookeeper_listen=%s zookeeper_data_dir=%s/zk%d/data zookeeper_config_dir=%s/zk%d/etc\n", i+1, a, a, w.root, i+1, w.root, i+1)
	}
	fmt.Fprintf(&b, "[role=control]\nn[1:%d]\n[role=worker]\nn%d\n[all:vars]\n", masters, masters+1)
	fmt.Fprintf(&b, "zookeeper_client_port=%d\nzookeeper_peer_port=%d\nzookeeper_election_port=%d\nzookeeper_tick_time=200\nzookeeper_heap=64m\n", ports[0], ports[1], ports[2])
	fmt.Fprintf(&b, "mesos_master_port=%d\nmesos_agent_port=%d\nmarathon_http_port=%d\n", ports[3], ports[4], ports[5])
	fmt.Fprintf(&b, "mesos_docker_socket=%s\n", strings.TrimPrefix(w.engine.Host(), "unix://"))
	b.WriteString("mesos_file=mesos.tar.gz\nmarathon_file=marathon.tgz\n" + extra)
	w.platform = componenttest.Platform(t, b.String())
	w.hosts = componenttest.Here(t, w.platform)
	return w
}

func (w *world) node(name string) *cluster.Node { return componenttest.Node(w.t, w.platform, name) }

// here has paths of a part below the test's directory.
func (w *world) here(part *desired.Part, node string) *desired.Part {
	root := filepath.Join(w.root, node)
	r := strings.NewReplacer(
		"/etc/mi-lb", root+"/etc", "/var/lib/", root+"/lib/", "/var/run/mesos", root+"/run", "/run/mi-lb-mesos-agent", root+"/run",
		"/opt/mesos/sbin/mesos-master", w.programs.Master, "/opt/mesos/sbin/mesos-agent", w.programs.Agent, "/opt/marathon/bin/marathon", w.programs.Marathon,
	)
	w.must(os.MkdirAll(root+"/run", 0o755))
	for i := range part.Directories {
		part.Directories[i].Path = r.Replace(part.Directories[i].Path)
	}
	for i := range part.Files {
		f := &part.Files[i]
		f.Path, f.Content, f.Then = r.Replace(f.Path), r.Replace(f.Content), ""
		if !f.Secret.IsEmpty() {
			f.Secret = redact.New(r.Replace(f.Secret.Reveal()))
		}
	}
	for i := range part.Units {
		part.Units[i].Content = r.Replace(part.Units[i].Content)
	}
	return part
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// install puts a component's files in place.
func (w *world) install(c component.Component, node string) *desired.Part {
	w.t.Helper()
	part, problems := c.Desired(w.platform, w.node(node))
	if part == nil {
		w.t.Fatalf("%s on %s: %+v", c.Name(), node, problems)
	}
	part = w.here(part, node)
	componenttest.Install(w.t, part, w.root)
	return part
}

// start installs a component and runs its unit.
func (w *world) start(c component.Component, node string) {
	w.t.Helper()
	part := w.install(c, node)
	w.processes[c.Name()+" "+node] = componenttest.Start(w.t, part.Units[len(part.Units)-1])
}

func (w *world) healthy(c component.Component, nodes ...string) {
	w.t.Helper()
	for _, n := range nodes {
		componenttest.Eventually(w.t, 90*time.Second, c.Name()+" on "+n+" is healthy", func(ctx context.Context) error {
			return c.Healthy(ctx, w.platform, w.node(n), w.hosts)
		})
	}
}

// zookeeper runs the ensemble, with the znodes that belong to Mesos and Marathon.
func (w *world) zookeeper() {
	w.t.Helper()
	c := zookeeper.New()
	for i := range masters {
		w.start(c, fmt.Sprintf("n%d", i+1))
	}
	w.healthy(c, "n1", "n2", "n3")
	componenttest.Eventually(w.t, time.Minute, "znodes", func(ctx context.Context) error {
		actions, err := c.(component.Configurer).Pending(ctx, w.platform, w.platform.Cluster.Datacenters[0], w.hosts)
		for _, a := range actions {
			err = errors.Join(err, a.Do(ctx))
		}
		return err
	})
}

// marathon asks a member of Marathon.
func (w *world) marathon(node, method, path string, body any) (int, string) {
	w.t.Helper()
	data, err := json.Marshal(body)
	w.must(err)
	n := w.node(node)
	port, _, err := n.Host.Var("marathon_http_port")
	w.must(err)
	request, err := http.NewRequestWithContext(w.t.Context(), method, fmt.Sprintf("http://%s:%v%s", n.Address, port.Value, path), bytes.NewReader(data))
	w.must(err)
	login := w.platform.Secrets.Marathon("dc1")
	request.SetBasicAuth(login.User, login.Password.Reveal())
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil { // who answered has ended
		return 0, err.Error()
	}
	return response.StatusCode, string(answer)
}

// answer is what an app's only running task answers.
func (w *world) answer(node, app string) (string, error) {
	_, body := w.marathon(node, http.MethodGet, "/v2/apps/"+app+"/tasks", nil)
	var tasks struct {
		Tasks []struct {
			State string `json:"state"`
			Host  string `json:"host"`
			Ports []int  `json:"ports"`
		} `json:"tasks"`
	}
	if err := json.Unmarshal([]byte(body), &tasks); err != nil {
		return "", fmt.Errorf("%w: %s", err, body)
	}
	for _, task := range tasks.Tasks {
		if task.State == "TASK_RUNNING" && len(task.Ports) == 1 {
			response, err := http.Get(fmt.Sprintf("http://%s:%d/", task.Host, task.Ports[0]))
			if err != nil {
				return "", err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			return string(text), err
		}
	}
	return "", fmt.Errorf("no task runs: %s", body)
}

func TestADatacenterRunsContainersAndOutlivesItsLeaders(t *testing.T) {
	w := newWorld(t, "mesos_drain_before_restart=yes\nmesos_drain_grace=5s\n")
	w.must(w.engine.Import(t.Context(), "web"))
	w.zookeeper()
	master, agent, scheduler := mesosmaster.New(), mesosagent.New(), marathon.New()
	w.start(master, "n1")
	w.start(master, "n2")
	componenttest.Eventually(t, time.Minute, "two of three new masters do not begin a registry", func(ctx context.Context) error {
		err := master.Healthy(ctx, w.platform, w.node("n1"), w.hosts)
		if err == nil || !strings.Contains(err.Error(), "has not recovered") {
			return fmt.Errorf("n1: %w", err)
		}
		return nil
	})
	w.start(master, "n3")
	w.healthy(master, "n1", "n2", "n3")
	w.start(scheduler, "n1")
	w.start(scheduler, "n2")
	w.start(scheduler, "n3")
	w.healthy(scheduler, "n1", "n2", "n3")
	w.start(agent, "n4")
	w.healthy(agent, "n4")

	app := map[string]any{
		"id": "/web", "instances": 1, "cpus": 0.1, "mem": 32,
		"networks": []any{map[string]any{"mode": "container/bridge"}},
		"container": map[string]any{
			"type": "DOCKER", "docker": map[string]any{"image": "web"},
			"portMappings": []any{map[string]any{"containerPort": 80, "hostPort": 0}},
		},
	}
	if code, body := w.marathon("n2", http.MethodPost, "/v2/apps", app); code != http.StatusCreated {
		t.Fatalf("%d %s", code, body)
	}
	serves := func(what string) {
		t.Helper()
		componenttest.Eventually(t, 90*time.Second, "the app serves "+what, func(context.Context) error {
			_, err := w.answer("n3", "web")
			return err
		})
	}
	serves("at first")
	containers, err := w.engine.Docker(t.Context(), "ps", "--format", "{{.Names}} {{.ID}}")
	w.must(err)
	if !strings.HasPrefix(containers, "mesos-") {
		t.Errorf("containers: %q", containers)
	}
	environment, err := w.engine.Docker(t.Context(), "inspect", "--format", "{{.Config.Env}}", strings.Fields(containers)[0])
	w.must(err)
	for _, want := range []string{"MARATHON_APP_ID=/web", "MESOS_TASK_ID=web.instance-", "PORT0=", "HOST=127.0.9.4"} {
		if !strings.Contains(environment, want) {
			t.Errorf("%s is not in %s", want, environment)
		}
	}

	// Leaders change hands, by the components' own rolling.
	for _, c := range []component.Component{master, scheduler} {
		roller := c.(component.Roller)
		nodes, err := roller.Order(t.Context(), w.platform, w.platform.Cluster.Datacenters[0].Nodes[:masters], w.hosts)
		w.must(err)
		for _, n := range nodes {
			componenttest.Eventually(t, time.Minute, c.Name()+" lets "+n.Name+" go", func(ctx context.Context) error {
				return roller.BeforeRestart(ctx, w.platform, n, w.hosts)
			})
			w.processes[c.Name()+" "+n.Name].Stop()
			w.start(c, n.Name)
			w.healthy(c, "n1", "n2", "n3")
		}
		w.healthy(agent, "n4")
		serves("after " + c.Name() + "s were restarted")
	}
	w.processes["mesos-agent n4"].Stop()
	w.start(agent, "n4")
	w.healthy(agent, "n4")
	serves("after its agent was restarted")
	if now, err := w.engine.Docker(t.Context(), "ps", "--format", "{{.Names}} {{.ID}}"); err != nil || now != containers {
		t.Errorf("containers: %q, %v; they were %q", now, err, containers)
	}

	// An agent that is drained has nothing, and is let have tasks again.
	roller := agent.(component.Roller)
	w.must(roller.BeforeRestart(t.Context(), w.platform, w.node("n4"), w.hosts))
	componenttest.Eventually(t, time.Minute, "the agent is drained", func(ctx context.Context) error {
		now, err := w.engine.Docker(ctx, "ps", "--format", "{{.Names}}")
		if err == nil && now != "" {
			err = fmt.Errorf("%q", now)
		}
		return err
	})
	w.processes["mesos-agent n4"].Stop()
	w.start(agent, "n4")
	w.healthy(agent, "n4")
	w.must(roller.AfterRestart(t.Context(), w.platform, w.node("n4"), w.hosts))
	serves("after its agent was drained")
	containers, err = w.engine.Docker(t.Context(), "ps", "--format", "{{.Names}} {{.ID}}")
	w.must(err)

	// A container that dies is replaced.
	_, err = w.engine.Docker(t.Context(), "kill", strings.Fields(containers)[0])
	w.must(err)
	componenttest.Eventually(t, time.Minute, "the container is replaced", func(ctx context.Context) error {
		now, err := w.engine.Docker(ctx, "ps", "--format", "{{.Names}} {{.ID}}")
		if err == nil && (now == containers || now == "") {
			err = fmt.Errorf("%q", now)
		}
		return err
	})
	serves("again")
	if code, body := w.marathon("n1", http.MethodDelete, "/v2/apps/web", nil); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	componenttest.Eventually(t, time.Minute, "nothing runs any more", func(ctx context.Context) error {
		now, err := w.engine.Docker(ctx, "ps", "--format", "{{.Names}}")
		if err == nil && now != "" {
			err = fmt.Errorf("%q", now)
		}
		return err
	})

	// Attributes that change have the agent refuse to start, as the component says.
	w.platform.Facts["n4"].Files = map[string]facts.File{
		"/etc/mi-lb/mesos-agent/environment": {Content: "MESOS_HOSTNAME=127.0.9.4\nMESOS_ATTRIBUTES=dc:dc1;node_id:n4\n"},
	}
	changed := *w.node("n4")
	changed.MesosAttributes = "dc:other;node_id:n4"
	if problems := agent.(component.Checker).Check(w.platform, &changed); len(problems) != 1 || !problems[0].Fatal {
		t.Errorf("problems: %+v", problems)
	}
	w.processes["mesos-agent n4"].Stop()
	part, _ := agent.Desired(w.platform, &changed)
	part = w.here(part, "n4")
	componenttest.Install(t, part, w.root)
	p := componenttest.Start(t, part.Units[0])
	componenttest.Eventually(t, time.Minute, "the agent refuses", func(context.Context) error {
		if p.Running() || !strings.Contains(p.Output(), "Incompatible agent info detected") {
			return errors.New(p.Output())
		}
		return nil
	})
}

// restart starts a unit anew with files that were changed by edit.
func (w *world) restart(c component.Component, node string, edit func(*desired.File)) *componenttest.Process {
	w.t.Helper()
	if p := w.processes[c.Name()+" "+node]; p != nil {
		p.Stop()
	}
	part, problems := c.Desired(w.platform, w.node(node))
	if part == nil {
		w.t.Fatalf("%+v", problems)
	}
	part = w.here(part, node)
	for i := range part.Files {
		edit(&part.Files[i])
	}
	componenttest.Install(w.t, part, w.root)
	p := componenttest.Start(w.t, part.Units[len(part.Units)-1])
	w.processes[c.Name()+" "+node] = p
	return p
}

func (w *world) ends(p *componenttest.Process, saying string) {
	w.t.Helper()
	componenttest.Eventually(w.t, time.Minute, "it ends, saying "+saying, func(context.Context) error {
		if p.Running() || !strings.Contains(p.Output(), saying) {
			return errors.New(p.Output())
		}
		return nil
	})
}

func TestOneMastersRegistryIsNotThatOfThree(t *testing.T) {
	w := newWorld(t, `mesos_master_options={"registry_fetch_timeout": "5secs"}`+"\n")
	w.zookeeper()
	c := mesosmaster.New()
	alone := func(node string) error {
		err := c.Healthy(t.Context(), w.platform, w.node(node), w.hosts)
		if err == nil {
			return errors.New("one master is healthy for a quorum of two")
		}
		if strings.Contains(err.Error(), "it sees 1 masters, and the quorum is 2") {
			return nil // it works, for a quorum of one
		}
		return err
	}
	w.restart(c, "n1", func(f *desired.File) { f.Content = strings.Replace(f.Content, "MESOS_QUORUM=2", "MESOS_QUORUM=1", 1) })
	componenttest.Eventually(t, time.Minute, "the one master has a registry", func(context.Context) error { return alone("n1") })
	w.processes["mesos-master n1"].Stop()
	for _, node := range []string{"n1", "n2", "n3"} {
		w.start(c, node)
	}
	w.ends(w.processes["mesos-master n1"], "Failed to recover registrar")
	for _, node := range []string{"n1", "n2", "n3"} {
		w.processes["mesos-master "+node].Stop()
	}
	// What mesos_accept_registry_loss does.
	w.must(os.RemoveAll(filepath.Join(w.root, "n1/lib/mesos/master/replicated_log")))
	for _, node := range []string{"n1", "n2", "n3"} {
		w.start(c, node)
	}
	w.healthy(c, "n1", "n2", "n3")

	// Who does not know the secret is not let in.
	agent := mesosagent.New()
	wrong := w.restart(agent, "n4", func(f *desired.File) {
		if filepath.Base(f.Path) == "credential.json" {
			f.Secret = redact.New(strings.Replace(f.Secret.Reveal(), `"secret": "`, `"secret": "x`, 1))
		}
	})
	w.ends(wrong, "refused authentication")
	newline := w.restart(marathon.New(), "n1", func(f *desired.File) {
		if filepath.Base(f.Path) == "mesos-secret" {
			f.Secret = redact.New(f.Secret.Reveal() + "\n")
		}
	})
	w.ends(newline, "Mesos refuses the framework")
	w.start(marathon.New(), "n1")
	componenttest.Eventually(t, time.Minute, "it is let in with the secret", func(ctx context.Context) error {
		return marathon.New().Healthy(ctx, w.platform, w.node("n1"), w.hosts)
	})
}
