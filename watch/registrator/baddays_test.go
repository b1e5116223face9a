package registrator_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/watch/registrator"
)

// ownAgent is an agent that a test may treat badly.
func ownAgent(t *testing.T, o consul.Options) *consul.Agent {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	a, err := consul.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Stop)
	if err := a.WaitLeader(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDockerRestarts(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	w.docker("run", "-d", "--name", "back", "--restart=always", "-p", "8771:80", "web")
	w.docker("run", "-d", "--name", "gone", "-p", "8772:80", "web")
	w.await("back:80 is web at 127.0.0.1:8771", "gone:80 is web at 127.0.0.1:8772")

	engine.Shutdown()
	w.awaitLog("Docker is out of reach")
	w.awaitCondition("it is not ready without Docker", func() bool {
		ready, why := w.current.Status().Ready()
		return !ready && strings.HasPrefix(why, "Docker: ")
	})
	if err := engine.Relaunch(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.await("back:80 is web at 127.0.0.1:8771")
	w.awaitReady()

	// Killed, the engine cannot say what becomes of its containers: services
	// stay until it is back and can.
	engine.Kill()
	w.awaitCondition("the loss is noticed", func() bool { return w.log.count("Docker is out of reach") >= 2 })
	w.await("back:80 is web at 127.0.0.1:8771")
	if err := engine.Relaunch(w.ctx); err != nil {
		t.Fatal(err)
	}
	w.docker("rm", "-f", "back")
	w.await()
	w.docker("run", "-d", "--name", "new", "-p", "8773:80", "web")
	w.await("new:80 is web at 127.0.0.1:8773")
}

func TestConsulRestartsWithAnEmptyState(t *testing.T) {
	a := ownAgent(t, consul.Options{})
	w := newWorld(t, a)
	// It must not be a comparison on time that finds out.
	w.start(func(o *registrator.Options) { o.Resync = time.Hour })
	w.docker("run", "-d", "--name", "web", "-p", "8771:80", "checked")
	w.docker("run", "-d", "--name", "gone", "-p", "8772:80", "web")
	w.await("web:80 is checked at 127.0.0.1:8771", "gone:80 is web at 127.0.0.1:8772")

	a.Kill()
	w.docker("run", "-d", "--name", "new", "-p", "8773:80", "web")
	w.docker("rm", "-f", "gone")
	w.awaitLog("the Consul agent does not answer")
	if err := a.Restart(w.ctx, true); err != nil {
		t.Fatal(err)
	}
	w.await("web:80 is checked at 127.0.0.1:8771", "new:80 is web at 127.0.0.1:8773")

	// It restarts so fast that nobody notices but for what is missing.
	w.awaitReady()
	if err := a.Restart(w.ctx, true); err != nil {
		t.Fatal(err)
	}
	w.await("web:80 is checked at 127.0.0.1:8771", "new:80 is web at 127.0.0.1:8773")

	// With its data it comes back with what it had, and what changed meanwhile.
	a.Kill()
	w.docker("rm", "-f", "new")
	if err := a.Restart(w.ctx, false); err != nil {
		t.Fatal(err)
	}
	w.await("web:80 is checked at 127.0.0.1:8771")
}

func TestAnAgentThatHangsDelaysAndLosesNothing(t *testing.T) {
	a := ownAgent(t, consul.Options{})
	w := newWorld(t, a)
	w.start()
	w.docker("run", "-d", "--name", "gone", "-p", "8772:80", "web")
	w.await("gone:80 is web at 127.0.0.1:8772")
	w.awaitReady() // the agent's answer has come, too
	if err := a.Pause(); err != nil {
		t.Fatal(err)
	}
	w.docker("run", "-d", "--name", "web", "-p", "8771:80", "web")
	w.docker("rm", "-f", "gone")
	w.awaitCondition("the change is pending", func() bool { return w.current.Status().Pending == 2 })
	// Nobody knows what becomes of a registration whose container is gone before
	// the answer has come.
	w.docker("run", "-d", "--name", "brief", "-p", "8773:80", "web")
	w.awaitCondition("one more is pending", func() bool { return w.current.Status().Pending == 3 })
	w.docker("rm", "-f", "brief")
	w.awaitCondition("it is not any more", func() bool { return w.current.Status().Pending == 2 })
	if err := a.Resume(); err != nil {
		t.Fatal(err)
	}
	w.await("web:80 is web at 127.0.0.1:8771")
}

func TestATokenWithoutRights(t *testing.T) {
	const management, weak = "11111111-2222-4333-8444-555555555555", "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	a := ownAgent(t, consul.Options{ManagementToken: management})
	acl := a.Client().ACL()
	write := &api.WriteOptions{Token: management}
	policy, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: "registrator", Rules: `service_prefix "allowed" { policy = "write" }`}, write)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := acl.TokenCreate(&api.ACLToken{SecretID: weak, Policies: []*api.ACLLink{{ID: policy.ID}}}, write); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, a)
	w.token = weak
	w.start()
	w.token, w.api = management, nil
	w.docker("run", "-d", "--name", "web", "-p", "8771:80", "-e", "SERVICE_NAME=forbidden", "web")
	w.docker("run", "-d", "--name", "may", "-p", "8772:80", "-e", "SERVICE_NAME=allowed", "web")
	w.await("may:80 is allowed at 127.0.0.1:8772")
	w.awaitLog("the Consul agent refused an operation", "web:80", "403", `service_prefix \"\" { policy = \"write\" }`)
	if strings.Contains(w.log.String(), weak) {
		t.Error("the token is in the log")
	}
	policy.Rules = `service_prefix "" { policy = "write" }`
	if _, _, err := acl.PolicyUpdate(policy, write); err != nil {
		t.Fatal(err)
	}
	w.await("may:80 is allowed at 127.0.0.1:8772", "web:80 is forbidden at 127.0.0.1:8771")
	if n := w.log.count("refused an operation"); n > 2 {
		t.Errorf("one refusal made %d log lines", n)
	}
}

func TestContainersThatLiveFor50Milliseconds(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	var running sync.WaitGroup
	for i := range 10 {
		running.Go(func() {
			if _, err := engine.Docker(w.ctx, "run", "-d", "--rm", "--name", fmt.Sprintf("short%d", i), "-p", w.port(), "web", "/testserver", "-life", "50ms"); err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	w.docker("run", "-d", "--name", "last", "-p", "8771:80", "web")
	w.await("last:80 is web at 127.0.0.1:8771")
	w.awaitReady()
	w.await("last:80 is web at 127.0.0.1:8771")
}

func Test200ContainersStartAtOnce(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	const most = 200
	var want []string
	var starting sync.WaitGroup
	slots := make(chan struct{}, 8)
	for i := range most {
		port := edge.FreePort(t)
		want = append(want, fmt.Sprintf("c%d:%d is web at 127.0.0.1:%d", i, port, port))
		starting.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			// In the host's network: what is asked of registrator is the same, and
			// 200 networks and proxies need not be made.
			if _, err := engine.Docker(w.ctx, "run", "-d", "--name", fmt.Sprintf("c%d", i), "--net=host",
				"-e", "MARATHON_APP_ID=/web", "-e", fmt.Sprintf("PORTS=%d", port), "web", "/testserver", "-listen", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
				t.Error(err)
			}
		})
	}
	starting.Wait()
	w.await(want...)
	if n := w.log.count("service registered"); n != most {
		t.Errorf("%d services took %d registrations", most, n)
	}
	w.docker(append([]string{"kill"}, strings.Fields(w.docker("ps", "-q"))...)...)
	w.await()
}

func TestTwoContainersClaimOneID(t *testing.T) {
	w := newWorld(t, agent)
	if err := w.client().Agent().ServiceRegister(&api.AgentServiceRegistration{ID: "vault", Name: "vault", Port: 8200, Address: "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.docker("run", "-d", "--name", "one", "-p", "8771:80", "-e", "SERVICE_ID=mine", "web")
	w.await("mine is web at 127.0.0.1:8771", "vault is vault at 127.0.0.1:8200")
	w.docker("run", "-d", "--name", "two", "-p", "8772:80", "-e", "SERVICE_ID=mine", "web")
	w.docker("run", "-d", "--name", "thief", "-p", "8773:80", "-e", "SERVICE_ID=vault", "web")
	two := w.docker("inspect", "--format", "{{slice .Id 0 12}}", "two")
	w.awaitLog("refused", "id-taken", "docker/"+two, `claims the service id \"mine\"`)
	w.awaitLog("refused", "id-taken", `the agent has a service \"vault\" with the id \"vault\"`)
	w.await("mine is web at 127.0.0.1:8771", "vault is vault at 127.0.0.1:8200")
	if findings := w.current.Status().Findings; len(findings) != 2 {
		t.Errorf("findings: %v", findings)
	}
	w.docker("rm", "-f", "one")
	w.await("mine is web at 127.0.0.1:8772", "vault is vault at 127.0.0.1:8200")
	if err := w.client().Agent().ServiceDeregister("vault"); err != nil {
		t.Fatal(err)
	}
}

func TestEnvironmentsWithNewlinesAnd64Kilobytes(t *testing.T) {
	w := newWorld(t, agent)
	w.start()
	long := strings.Repeat("x", 64<<10)
	w.docker("run", "-d", "--name", "web", "-p", "8771:80", "-e", "SERVICE_TAGS=good,bad\nbind :80", "-e", "SERVICE_REGION=a\nb",
		"-e", "SERVICE_NOTE="+long, "-e", "SERVICE_OWNER=me", "-e", "SECRET=hunter2\n"+long, "web")
	w.docker("run", "-d", "--name", "nameless", "-p", "8772:80", "-e", "SERVICE_NAME=a\nb", "web")
	w.docker("run", "-d", "--name", "fine", "-p", "8773:80", "web")
	w.await("web:80 is web at 127.0.0.1:8771 tags good", "fine:80 is web at 127.0.0.1:8773")
	w.awaitLog("refused", "invalid-tag", "docker/web", "SERVICE_TAGS")
	w.awaitLog("refused", "invalid-metadata", "docker/web", "SERVICE_REGION")
	w.awaitLog("refused", "invalid-metadata", "docker/web", "SERVICE_NOTE", "65536 bytes")
	w.awaitLog("refused", "invalid-name", "docker/nameless", "SERVICE_NAME")
	s, _, err := w.client().Agent().Service(w.options.Policy.Host+":web:80", nil)
	if err != nil || s.Meta["owner"] != "me" || len(s.Meta) != 2 {
		t.Errorf("metadata %v, %v", s.Meta, err)
	}
	if text := w.log.String(); strings.Contains(text, "hunter2") || len(text) > 32<<10 {
		t.Errorf("the log has the environment in it: %d bytes", len(text))
	}
}

// The child is a registrator in a process of its own, to be killed.
const (
	childHost   = "REGISTRATOR_TEST_CHILD_HOST"
	childDocker = "REGISTRATOR_TEST_CHILD_DOCKER"
	childConsul = "REGISTRATOR_TEST_CHILD_CONSUL"
)

func child() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	e, err := registrator.NewEngineAt(os.Getenv(childDocker))
	if err != nil {
		return fail(err)
	}
	a, err := registrator.NewAgent("consul://" + os.Getenv(childConsul))
	if err != nil {
		return fail(err)
	}
	r, err := registrator.New(registrator.Options{
		Policy: registrator.Policy{Host: os.Getenv(childHost), Address: "127.0.0.1", DockerHealth: true},
		Engine: e, Agent: a, RetryAttempts: -1, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return fail(err)
	}
	if err := r.Run(context.Background()); err != nil {
		return fail(err)
	}
	return 0
}

func TestSIGKILLAndRestart(t *testing.T) {
	w := newWorld(t, agent)
	var command *exec.Cmd
	launch := func() {
		t.Helper()
		command = exec.Command(os.Args[0])
		command.Env = append(os.Environ(), childHost+"="+w.options.Policy.Host, childDocker+"="+engine.Host(), childConsul+"="+agent.HTTPAddress())
		command.Stderr = w.log
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
	}
	kill := func() {
		_ = command.Process.Signal(syscall.SIGKILL)
		_ = command.Wait()
	}
	launch()
	t.Cleanup(func() { kill() })
	w.docker("run", "-d", "--name", "stays", "-p", "8771:80", "web")
	w.docker("run", "-d", "--name", "goes", "-p", "8772:80", "web")
	w.await("stays:80 is web at 127.0.0.1:8771", "goes:80 is web at 127.0.0.1:8772")
	kill()
	w.docker("rm", "-f", "goes")
	w.docker("run", "-d", "--name", "comes", "-p", "8773:80", "web")
	w.await("stays:80 is web at 127.0.0.1:8771", "goes:80 is web at 127.0.0.1:8772")
	launch()
	w.await("stays:80 is web at 127.0.0.1:8771", "comes:80 is web at 127.0.0.1:8773")
	if n := w.log.count("service registered", "stays"); n != 1 {
		t.Errorf("what was right has been registered %d times", n)
	}
}
