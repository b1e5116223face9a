package registrator_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/docker"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/watch/registrator"
)

// One engine and one agent serve all tests, one after the other: each takes a
// fresh host name and removes its containers.
var (
	engine *docker.Engine
	agent  *consul.Agent
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	if os.Getenv(childHost) != "" {
		return child()
	}
	if fuzz := flag.Lookup("test.fuzz"); fuzz.Value.String() != "" {
		return m.Run() // fuzzing needs neither
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if engine, err = docker.Start(ctx, docker.Options{}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { engine.Stop() }()
	if agent, err = consul.Start(ctx, consul.Options{}); err == nil {
		err = agent.WaitLeader(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer agent.Stop()
	for name, changes := range map[string][]string{
		"web":     {"EXPOSE 80"},
		"side":    {"EXPOSE 81"},
		"checked": {"EXPOSE 80", `HEALTHCHECK --interval=200ms --retries=1 CMD ["/testserver", "-probe"]`},
	} {
		if err := engine.Import(ctx, name, changes...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// world is one test's: a registrator between the engine and an agent.
type world struct {
	t       *testing.T
	ctx     context.Context
	agent   *consul.Agent
	token   string
	api     *api.Client
	options registrator.Options
	log     *logBuffer
	stop    func()
	current *registrator.Registrator
}

// newWorld is one whose services carry the test's name as host.
func newWorld(t *testing.T, a *consul.Agent) *world {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	w := &world{t: t, ctx: ctx, agent: a, log: &logBuffer{}, stop: func() {}}
	w.options.Policy = registrator.Policy{Host: "host-" + strings.ToLower(t.Name()), Address: "127.0.0.1", DockerHealth: true}
	w.options.RetryAttempts = -1
	t.Cleanup(func() {
		w.stop()
		// However the test ended, and be the agent dead or stopped.
		ctx, cancelCleanup := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancelCleanup()
		if ids, err := engine.Docker(ctx, "ps", "-aq"); err == nil && ids != "" {
			_, _ = engine.Docker(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		query := (&api.QueryOptions{}).WithContext(ctx)
		if services, err := w.client().Agent().ServicesWithFilterOpts("", query); err == nil {
			for id := range services {
				_ = w.client().Agent().ServiceDeregisterOpts(id, query)
			}
		}
		if t.Failed() {
			t.Logf("log:\n%s", w.log.String())
		}
		cancel()
	})
	return w
}

// start runs a registrator until stop; change, if any, edits its options first.
func (w *world) start(changes ...func(*registrator.Options)) {
	w.t.Helper()
	if w.token != "" {
		w.t.Setenv("CONSUL_HTTP_TOKEN", w.token)
	}
	o := w.options
	var err error
	if o.Engine, err = registrator.NewEngineAt(engine.Host()); err != nil {
		w.t.Fatal(err)
	}
	if o.Agent, err = registrator.NewAgent("consul://" + w.agent.HTTPAddress()); err != nil {
		w.t.Fatal(err)
	}
	o.Log = slog.New(slog.NewTextHandler(w.log, nil))
	for _, change := range changes {
		change(&o)
	}
	r, err := registrator.New(o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.current = r
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
}

func (w *world) client() *api.Client {
	if w.api != nil {
		return w.api
	}
	config := api.DefaultConfig()
	config.Address = w.agent.HTTPAddress()
	config.Token = w.token
	client, err := api.NewClient(config)
	if err != nil {
		w.t.Fatal(err)
	}
	w.api = client
	return client
}

func (w *world) docker(arguments ...string) string {
	w.t.Helper()
	out, err := engine.Docker(w.ctx, arguments...)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// port publishes port 80 at a free one: one that Docker chose could be one that an
// outgoing connection has.
func (w *world) port() string {
	w.t.Helper()
	return fmt.Sprintf("%d:80", edge.FreePort(w.t))
}

// published is the host port of a container's port.
func (w *world) published(container string, port string) string {
	w.t.Helper()
	for _, line := range strings.Split(w.docker("port", container, port), "\n") {
		if !strings.Contains(line, "[") {
			return line[strings.LastIndexByte(line, ':')+1:]
		}
	}
	w.t.Fatalf("port %s of %s is not published", port, container)
	return ""
}

// services are those of the agent that are not its own, one line each: id, name,
// address, tags, and the worst of its checks with maintenance shown as such.
func (w *world) services() ([]string, error) {
	query := (&api.QueryOptions{}).WithContext(w.ctx)
	services, err := w.client().Agent().ServicesWithFilterOpts("", query)
	if err != nil {
		return nil, err
	}
	checks, err := w.client().Agent().ChecksWithFilterOpts("", query)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, id := range slices.Sorted(maps.Keys(services)) {
		s := services[id]
		if id == "consul" {
			continue
		}
		health := ""
		for _, check := range checks {
			switch {
			case check.ServiceID != id:
			case strings.HasPrefix(check.CheckID, "_service_maintenance"):
				health = " in maintenance"
			case health == "" && check.Status != "passing":
				health = " " + check.Status
			}
		}
		line := fmt.Sprintf("%s is %s at %s:%d", strings.TrimPrefix(id, w.options.Policy.Host+":"), s.Service, s.Address, s.Port)
		if len(s.Tags) > 0 {
			line += " tags " + strings.Join(s.Tags, "|")
		}
		lines = append(lines, line+health)
	}
	return lines, nil
}

// await waits until the agent has exactly these services.
func (w *world) await(want ...string) {
	w.t.Helper()
	slices.Sort(want)
	var got []string
	var err error
	for w.ctx.Err() == nil {
		if got, err = w.services(); err == nil {
			slices.Sort(got)
			if slices.Equal(got, want) {
				return
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	w.t.Fatalf("the agent has other services (%v):\n%s", err, cmp.Diff(want, got))
}

func (w *world) awaitCondition(what string, is func() bool) {
	w.t.Helper()
	for w.ctx.Err() == nil {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	w.t.Fatalf("it never came to be that %s", what)
}

// awaitLog waits for a line that has all of the texts.
func (w *world) awaitLog(texts ...string) {
	w.t.Helper()
	w.awaitCondition("the log has "+strings.Join(texts, ", "), func() bool { return w.log.has(texts...) })
}

// awaitReady waits until the registrator says that all is well.
func (w *world) awaitReady() {
	w.t.Helper()
	w.awaitCondition("it is ready", func() bool {
		ready, _ := w.current.Status().Ready()
		return ready
	})
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *logBuffer) count(texts ...string) int {
	n := 0
	for line := range strings.Lines(l.String()) {
		if !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(line, text) }) {
			n++
		}
	}
	return n
}

func (l *logBuffer) has(texts ...string) bool { return l.count(texts...) > 0 }

func TestContainersRegisterAndLeaveInEveryKindOfNetwork(t *testing.T) {
	w := newWorld(t, agent)
	w.docker("network", "create", "own")
	t.Cleanup(func() { _, _ = engine.Docker(context.Background(), "network", "rm", "own") })
	w.docker("run", "-d", "--name", "before", "-p", w.port(), "-e", "SERVICE_TAGS=early", "web")
	w.start()
	w.docker("run", "-d", "--name", "bridged", "-p", w.port(), "-l", "SERVICE_NAME=bridged", "web")
	port := strconv.Itoa(edge.FreePort(t))
	w.docker("run", "-d", "--name", "hosted", "--net=host", "-e", "MARATHON_APP_ID=/hosted", "-e", "PORT0="+port, "-e", "PORTS="+port,
		"web", "/testserver", "-listen", "127.0.0.1:"+port)
	w.docker("run", "-d", "--name", "owned", "--net=own", "-p", w.port(), "-e", "SERVICE_80_NAME=owned", "web")
	w.docker("run", "-d", "--name", "side", "--net=container:owned", "side", "/testserver", "-listen", ":81")
	w.docker("run", "-d", "--name", "unpublished", "web")
	w.docker("run", "-d", "--name", "ignored", "-p", w.port(), "-e", "SERVICE_IGNORE=1", "web")
	ownAddress := w.docker("inspect", "--format", "{{.NetworkSettings.Networks.own.IPAddress}}", "owned")
	before := "before:80 is web at 127.0.0.1:" + w.published("before", "80") + " tags early"
	w.await(before,
		"bridged:80 is bridged at 127.0.0.1:"+w.published("bridged", "80"),
		"hosted:"+port+" is web at 127.0.0.1:"+port,
		"owned:80 is owned at 127.0.0.1:"+w.published("owned", "80"),
		"side:81 is side at "+ownAddress+":81")
	w.awaitReady()

	w.docker("rm", "-f", "bridged", "hosted", "owned", "side")
	w.await(before)
	w.docker("restart", "-t", "0", "before")
	w.await("before:80 is web at 127.0.0.1:" + w.published("before", "80") + " tags early")
	w.docker("rename", "before", "after")
	w.await("after:80 is web at 127.0.0.1:" + w.published("after", "80") + " tags early")
}

func TestInternalRegistersTheContainersOwnAddress(t *testing.T) {
	w := newWorld(t, agent)
	w.options.Policy.Internal = true
	w.start()
	w.docker("run", "-d", "--name", "inside", "web")
	w.await("inside:80 is web at " + w.docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", "inside") + ":80")
}

func TestAStoppedContainerIsDrainedBeforeItDies(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.docker("run", "-d", "--name", "web", "-p", w.port(), "web", "/testserver", "-grace", "1h")
	serving := "web:80 is web at 127.0.0.1:" + w.published("web", "80")
	w.await(serving)

	// What is no stop changes nothing.
	w.docker("kill", "--signal=WINCH", "web")
	w.docker("kill", "--signal=TERM", "web")
	w.await(serving + " in maintenance")
	if state := w.docker("inspect", "--format", "{{.State.Running}}", "web"); state != "true" {
		t.Errorf("drained only when it was dead: running is %s", state)
	}
	if n := w.log.count("put into maintenance"); n != 1 {
		t.Errorf("it was put into maintenance %d times", n)
	}

	// A registrator that starts now knows that it is being stopped.
	w.stop()
	w.start()
	w.awaitReady()
	w.await(serving + " in maintenance")

	w.docker("kill", "web")
	w.await()

	// The same container, started again, takes traffic again.
	w.docker("start", "web")
	w.await("web:80 is web at 127.0.0.1:" + w.published("web", "80"))
}

func TestAContainerThatDoesNotHeedItsSignalTakesTrafficAgain(t *testing.T) {
	w := newWorld(t, agent)
	w.start(func(o *registrator.Options) { o.DrainTimeout = time.Second })
	w.docker("run", "-d", "--name", "web", "-p", w.port(), "web", "/testserver", "-grace", "1h")
	serving := "web:80 is web at 127.0.0.1:" + w.published("web", "80")
	w.await(serving)
	w.docker("kill", "--signal=TERM", "web")
	w.await(serving + " in maintenance")
	w.await(serving)
	w.awaitLog("runs on; it takes traffic again")
}

func TestAPausedContainerTakesNoTraffic(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.docker("run", "-d", "--name", "web", "-p", w.port(), "web")
	serving := "web:80 is web at 127.0.0.1:" + w.published("web", "80")
	w.await(serving)
	w.docker("pause", "web")
	w.await(serving + " in maintenance")
	w.docker("unpause", "web")
	w.await(serving)
}

func TestHealthcheckIsShownAsACheck(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.docker("run", "-d", "--name", "web", "-p", w.port(), "checked")
	serving := "web:80 is checked at 127.0.0.1:" + w.published("web", "80")
	w.await(serving)
	w.docker("exec", "web", "/testserver", "-probe")
	w.docker("cp", "/dev/null", "web:/unhealthy")
	w.await(serving + " critical")
	checks, err := w.client().Agent().Checks()
	if err != nil {
		t.Fatal(err)
	}
	if output := checks["docker:"+w.options.Policy.Host+":web:80"].Output; output != "unhealthy: exit code 1: told to fail?by /health" {
		t.Errorf("the check says %q", output)
	}

	// The verdict is not lost while registrator is away.
	w.stop()
	w.await(serving + " critical")
	w.start()
	w.awaitReady()
	w.await(serving + " critical")
}

func TestAnOperatorsMaintenanceOutlivesANewRegistration(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.docker("run", "-d", "--name", "web", "-p", "8765:80", "web")
	w.await("web:80 is web at 127.0.0.1:8765")
	id := w.options.Policy.Host + ":web:80"
	if err := w.client().Agent().EnableServiceMaintenance(id, "disk is full"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start(func(o *registrator.Options) { o.Tags = tagTemplate(t, "dc1") })
	w.await("web:80 is web at 127.0.0.1:8765 tags dc1 in maintenance")
}

func TestOnSuccessLeavesWhatFailed(t *testing.T) {
	w := newWorld(t, agent)
	w.options.Policy.KeepFailed = true
	w.start()
	w.docker("run", "-d", "--name", "fails", "-p", "8766:80", "web", "/testserver", "-life", "700ms", "-code", "3")
	w.docker("run", "-d", "--name", "succeeds", "-p", "8767:80", "web", "/testserver", "-life", "700ms")
	w.await("fails:80 is web at 127.0.0.1:8766", "succeeds:80 is web at 127.0.0.1:8767")
	w.await("fails:80 is web at 127.0.0.1:8766")
	w.stop()
	w.start()
	w.awaitReady()
	w.await("fails:80 is web at 127.0.0.1:8766")
	w.docker("rm", "fails")
	w.await()
}

func tagTemplate(t *testing.T, text string) *registrator.TagTemplate {
	t.Helper()
	tags, err := registrator.ParseTagTemplate(text)
	if err != nil {
		t.Fatal(err)
	}
	return tags
}

func TestStatusIsJSONThatPeopleCanRead(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.awaitReady()
	text, err := json.Marshal(w.current.Status())
	if err != nil || string(text) != `{"known":true,"containers":0,"services":0,"pending":0}` {
		t.Errorf("%s, %v", text, err)
	}
}
