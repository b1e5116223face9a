package marathon_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// serving waits until the address answers HTTP and gives the body.
func serving(t *testing.T, address string) string {
	t.Helper()
	var body string
	eventually(t, address+" serves", func() bool {
		status, text, err := try("GET", "http://"+address+"/", nil)
		body = text
		return err == nil && status == 200
	})
	return body
}

func hostAddress(task marathon.Task, index int) string {
	return net.JoinHostPort(task.Agent.Address.String(), strconv.Itoa(task.Ports[index].HostPort))
}

// environmentOf is the environment of a process.
func environmentOf(t *testing.T, pid int) string {
	t.Helper()
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	return string(environment)
}

// taskProcesses are the processes of tasks whose sandboxes are in dir.
func taskProcesses(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, entry := range entries {
		environment, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if err == nil && bytes.Contains(environment, []byte("MESOS_SANDBOX="+dir)) {
			pids = append(pids, entry.Name())
		}
	}
	return pids
}

// observed is an observer that remembers.
type observed struct {
	mu    sync.Mutex
	heard []string
	tasks map[string]marathon.Task
}

func (o *observed) TaskStarted(task marathon.Task) { o.hear("started", task) }
func (o *observed) TaskStopped(task marathon.Task) { o.hear("stopped", task) }

func (o *observed) hear(what string, task marathon.Task) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.tasks == nil {
		o.tasks = map[string]marathon.Task{}
	}
	o.heard = append(o.heard, what+" "+task.ID)
	o.tasks[task.ID] = task
}

func (o *observed) has(what string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(o.heard, what)
}

func TestTheTryOutServes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	observer := &observed{}
	cluster := start(t, marathon.Options{Dir: dir, Observer: observer})
	must(t, "POST", cluster.URL()+"/v2/apps", strings.Replace(tryOut, `"instances":1`, `"instances":2`, 1))
	deployed(t, cluster)
	tasks := cluster.Tasks("webserver")
	if len(tasks) != 2 || tasks[0].Ports[0].HostPort == tasks[1].Ports[0].HostPort {
		t.Fatalf("tasks %v", tasks)
	}
	for _, task := range tasks {
		if body := serving(t, hostAddress(task, 0)); !strings.Contains(body, "Directory listing") {
			t.Errorf("got %q", body)
		}
		eventually(t, "the observer has heard of the task", func() bool { return observer.has("started " + task.ID) })
		heard := observer.tasks[task.ID]
		want := marathon.TaskPort{Protocol: "tcp", ContainerPort: 8080, HostPort: task.Ports[0].HostPort, ServicePort: 9000}
		if heard.Image != "python" || heard.Mode != "container/bridge" || heard.Ports[0] != want || !heard.Addresses[0].Is4() {
			t.Errorf("observed %+v", heard)
		}
	}
	if _, err := net.Dial("tcp", "127.0.0.1:9000"); err == nil {
		t.Error("the service port is open; it is the load balancer's")
	}
	if found := taskProcesses(t, dir); len(found) < 2 {
		t.Fatalf("found the processes %v", found)
	}
	cluster.Close()
	if left := taskProcesses(t, dir); len(left) > 0 {
		t.Errorf("processes left after Close: %v", left)
	}
	for _, task := range tasks {
		if !observer.has("stopped " + task.ID) {
			t.Errorf("the observer did not hear that %s stopped", task.ID)
		}
		if _, err := net.Dial("tcp", hostAddress(task, 0)); err == nil {
			t.Errorf("%s is still open", hostAddress(task, 0))
		}
	}
}

func TestHostNetworkingGetsPortsOfItsAgent(t *testing.T) {
	t.Parallel()
	agents := []marathon.Agent{
		{Hostname: "agent-1", Address: netip.MustParseAddr("127.0.1.1"), PortMin: 27000, PortMax: 27400},
		{Hostname: "agent-2", Address: netip.MustParseAddr("127.0.2.1"), PortMin: 27500, PortMax: 27900},
	}
	cluster := start(t, marathon.Options{Agents: agents})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"shop/web","instances":2,"constraints":[["hostname","UNIQUE"]],
		"cmd":"exec python3 -m http.server $PORT0","labels":{"my.label":"v"},"env":{"MINE":"yes"},
		"portDefinitions":[{"port":9100,"name":"http"},{"port":9101}]}`)
	deployed(t, cluster)
	tasks := cluster.Tasks("/shop/web")
	if len(tasks) != 2 || tasks[0].Agent.Hostname == tasks[1].Agent.Hostname {
		t.Fatalf("tasks %v", tasks)
	}
	for _, task := range tasks {
		serving(t, hostAddress(task, 0))
		if port := task.Ports[0].HostPort; port < task.Agent.PortMin || port > task.Agent.PortMax {
			t.Errorf("port %d is not of agent %v", port, task.Agent)
		}
		ports := []string{strconv.Itoa(task.Ports[0].HostPort), strconv.Itoa(task.Ports[1].HostPort)}
		environment := "\x00" + environmentOf(t, task.PID)
		for _, want := range []string{
			"PORT0=" + ports[0], "PORT1=" + ports[1], "PORT=" + ports[0], "PORTS=" + ports[0] + "," + ports[1],
			"PORT_HTTP=" + ports[0], "PORT_9100=" + ports[0], "HOST=" + task.Agent.Hostname, "MARATHON_APP_ID=/shop/web",
			"MESOS_TASK_ID=" + task.ID, "MARATHON_APP_LABEL_MY_LABEL=v", "MINE=yes",
		} {
			if !strings.Contains(environment, "\x00"+want+"\x00") {
				t.Errorf("the environment lacks %s", want)
			}
		}
	}
}

func TestContainerNetworkingGivesEveryTaskAnAddress(t *testing.T) {
	t.Parallel()
	agent := marathon.Agent{ContainerNetwork: netip.MustParsePrefix("127.201.0.0/24")}
	cluster := start(t, marathon.Options{Agents: []marathon.Agent{agent}})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"ip","instances":2,"cmd":"exec python3 -m http.server 8080",
		"networks":[{"name":"blue"}],"container":{"type":"MESOS","portMappings":[{"containerPort":8080}]},
		"healthChecks":[{"protocol":"HTTP","intervalSeconds":1}]}`)
	deployed(t, cluster)
	tasks := must(t, "GET", cluster.URL()+"/v2/apps/ip/tasks", nil)["tasks"].([]any)
	seen := map[string]bool{}
	for i := range tasks {
		if ports := at(t, tasks, i, "ports").([]any); len(ports) != 0 {
			t.Errorf("ports %v", ports)
		}
		address := at(t, tasks, i, "ipAddresses", 0, "ipAddress").(string)
		if !agent.ContainerNetwork.Contains(netip.MustParseAddr(address)) {
			t.Errorf("address %s is not of %s", address, agent.ContainerNetwork)
		}
		seen[address] = true
		serving(t, address+":8080")
	}
	if len(seen) != 2 {
		t.Errorf("addresses %v", seen)
	}
}

func TestAFixedHostPortIsTakenOrWaitedFor(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := taken.Addr().(*net.TCPAddr).Port
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", strings.Replace(tryOut, `"hostPort":0`, fmt.Sprintf(`"hostPort":%d`, port), 1))
	eventually(t, "the app waits for an offer", func() bool {
		return len(must(t, "GET", cluster.URL()+"/v2/queue", nil)["queue"].([]any)) == 1
	})
	taken.Close()
	deployed(t, cluster)
	serving(t, fmt.Sprintf("127.0.0.1:%d", port))
}

func TestFailedTasksAreRestartedWithBackoff(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event")
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"exit 3","backoffSeconds":1,"backoffFactor":10}`)
	failed := func(e sent) bool { return e.data["taskStatus"] == "TASK_FAILED" }
	first := stream.until("the first failure", failed)
	if last := first[len(first)-1]; last.data["message"] != "Command exited with status 3" {
		t.Errorf("failure %v", last)
	}
	stream.until("the second failure", failed)
	queue := must(t, "GET", cluster.URL()+"/v2/queue", nil)
	if left := at(t, queue, "queue", 0, "delay", "timeLeftSeconds").(float64); left < 5 || at(t, queue, "queue", 0, "delay", "overdue") != false {
		t.Errorf("after two failures the delay is %v", at(t, queue, "queue", 0, "delay"))
	}
	if failure := must(t, "GET", cluster.URL()+"/v2/apps/a", nil); at(t, failure, "app", "lastTaskFailure", "state") != "TASK_FAILED" {
		t.Errorf("last failure %v", failure)
	}
	if status, text := call(t, "DELETE", cluster.URL()+"/v2/queue//a/delay", nil); status != 204 {
		t.Errorf("resetting the delay: %d %s", status, text)
	}
	stream.until("the third failure", failed)
}

func TestWhatCannotRunSaysWhy(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event")
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","container":{"type":"DOCKER","docker":{"image":"redis"}}}`)
	read := stream.until("the failure", func(e sent) bool { return e.data["taskStatus"] == "TASK_FAILED" })
	if message := read[len(read)-1].data["message"].(string); !strings.Contains(message, `the emulator runs no images ("redis"): give the app a cmd`) {
		t.Errorf("message %q", message)
	}
}

func TestKilledTasksHaveTheirGrace(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	stream := subscribe(t, cluster.URL()+"/v2/events?event_type=status_update_event")
	dir := t.TempDir()
	for id, grace := range map[string]string{"polite": "30", "stubborn": "0.05"} {
		must(t, "POST", cluster.URL()+"/v2/apps", fmt.Sprintf(
			`{"id":"%s","taskKillGracePeriodSeconds":%s,"cmd":"trap 'test $MARATHON_APP_ID = /polite && exit 0' TERM; touch %s/%s; while :; do sleep 0.02; done"}`,
			id, grace, dir, id))
		eventually(t, id+" is ready", func() bool { _, err := os.Stat(filepath.Join(dir, id)); return err == nil })
		deployed(t, cluster)
		must(t, "DELETE", cluster.URL()+"/v2/apps/"+id, nil)
		var states []string
		for _, event := range stream.until(id+" is gone", func(e sent) bool { return e.data["taskStatus"] == "TASK_KILLED" }) {
			states = append(states, event.data["taskStatus"].(string))
		}
		if !slices.Contains(states, "TASK_KILLING") {
			t.Errorf("%s went through %v", id, states)
		}
		deployed(t, cluster)
	}
}

func TestARollingRestartWaitsForHealth(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"web","instances":2,"cmd":"exec python3 -m http.server $PORT0","env":{"V":"1"},
		"upgradeStrategy":{"minimumHealthCapacity":1,"maximumOverCapacity":0.5},
		"healthChecks":[{"protocol":"HTTP","path":"/","intervalSeconds":1,"gracePeriodSeconds":30}]}`)
	deployed(t, cluster)
	old := cluster.Tasks("web")
	stream := subscribe(t, cluster.URL()+"/v2/events")
	// The new version is healthy only once it is told.
	gate := filepath.Join(t.TempDir(), "gate")
	must(t, "PUT", cluster.URL()+"/v2/apps/web", map[string]any{
		"env": map[string]string{"V": "2"},
		"cmd": "while ! test -e " + gate + "; do sleep 0.05; done; exec python3 -m http.server $PORT0",
	})
	tasks := waitTasks(t, cluster, "web", "one task over capacity", running(3))
	for _, task := range old {
		if !slices.ContainsFunc(tasks, func(other marathon.Task) bool { return other.ID == task.ID }) {
			t.Errorf("%s was killed before its replacement was healthy", task.ID)
		}
	}
	status, text := call(t, "GET", cluster.URL()+"/v2/deployments", nil)
	if status != 200 || !strings.Contains(text, `"currentActions":[{"action":"RestartApplication","app":"/web"`) {
		t.Errorf("deployments: %d %s", status, text)
	}
	if err := os.WriteFile(gate, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	read := stream.untilKind("deployment_success")
	alive, killing := 0, 0
	for _, event := range read {
		switch {
		case event.kind == "health_status_changed_event" && event.data["alive"] == true:
			alive++
		case event.kind == "status_update_event" && event.data["taskStatus"] == "TASK_KILLING":
			if killing++; killing > alive {
				t.Errorf("killed %d old tasks with %d new ones healthy", killing, alive)
			}
		}
	}
	if now := cluster.Tasks("web"); len(now) != 2 || killing != 2 {
		t.Errorf("%d tasks now, %d killed", len(now), killing)
	}
}

func TestUnhealthyTasksAreReplaced(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, check string }{
		{"HTTP", `{"protocol":"HTTP","path":"/health","portIndex":0`},
		{"TCP", `{"protocol":"TCP","portIndex":1`},
		{"COMMAND", `{"protocol":"COMMAND","command":{"value":"test -e health"},"delaySeconds":0`},
		{"MESOS_HTTP", `{"protocol":"MESOS_HTTP","path":"/health","portIndex":0,"delaySeconds":0`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cluster := start(t, marathon.Options{})
			stream := subscribe(t, cluster.URL()+"/v2/events")
			must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"sick","instances":1,"backoffSeconds":0,
				"cmd":"touch health; python3 -m http.server 8081 & exec python3 -m http.server 8080",
				"networks":[{"mode":"container/bridge"}],"container":{"type":"MESOS","portMappings":[{"containerPort":8080},{"containerPort":8081}]},
				"healthChecks":[`+test.check+`,"gracePeriodSeconds":20,"intervalSeconds":0.2,"timeoutSeconds":1,"maxConsecutiveFailures":2}]}`)
			deployed(t, cluster)
			task := cluster.Tasks("sick")[0]
			results := at(t, must(t, "GET", cluster.URL()+"/v2/apps/sick", nil), "app", "tasks", 0, "healthCheckResults")
			if result := at(t, results, 0).(map[string]any); result["alive"] != true || result["firstSuccess"] == nil || result["instanceId"] != task.InstanceID {
				t.Errorf("result %v", result)
			}
			// Take away what the checks look for.
			sandbox, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", task.PID))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(filepath.Join(sandbox, "health")); err != nil {
				t.Fatal(err)
			}
			if test.name == "TCP" {
				killListener(t, task, "8081")
			}
			read := stream.untilKind("unhealthy_instance_kill_event")
			failures := 0
			for _, event := range read {
				if event.kind == "failed_health_check_event" {
					failures++
				}
			}
			if failures != 3 {
				t.Errorf("killed after %d failures, want maxConsecutiveFailures and one", failures)
			}
			kill := read[len(read)-1]
			if want := []string{"appId", "eventType", "host", "instanceId", "reason", "slaveId", "taskId", "timestamp", "version"}; !slices.Equal(keys(kill.data), want) {
				t.Errorf("kill event %v, want keys %v", kill.data, want)
			}
			waitTasks(t, cluster, "sick", "a replacement", func(tasks []marathon.Task) bool {
				return len(tasks) == 1 && tasks[0].ID != task.ID && tasks[0].State == "TASK_RUNNING"
			})
		})
	}
}

// killListener kills the task's process that has the argument.
func killListener(t *testing.T, task marathon.Task, argument string) {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		command, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		environment, _ := os.ReadFile(filepath.Join("/proc", entry.Name(), "environ"))
		if bytes.HasSuffix(command, []byte("\x00"+argument+"\x00")) && bytes.Contains(environment, []byte("MESOS_TASK_ID="+task.ID)) {
			pid, err := strconv.Atoi(entry.Name())
			if err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestADeploymentWaitsForReadiness(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"slow","cmd":"exec python3 -m http.server $PORT0","portDefinitions":[{"port":0,"name":"http"}],
		"readinessChecks":[{"portName":"http","path":"/ready","intervalSeconds":0.1,"preserveLastResponse":true}]}`)
	eventually(t, "the readiness check has an answer", func() bool {
		_, text := call(t, "GET", cluster.URL()+"/v2/deployments", nil)
		return strings.Contains(text, `"ready":false,"lastResponse":{"status":404`)
	})
	app := must(t, "GET", cluster.URL()+"/v2/apps?embed=apps.readiness", nil)
	if at(t, app, "apps", 0, "readinessCheckResults", 0, "ready") != false {
		t.Errorf("app %v", app)
	}
	sandbox, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", cluster.Tasks("slow")[0].PID))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(sandbox, "ready"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	deployed(t, cluster)
}

func TestHealthIsLostWithTheLeaderAndFoundAgain(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"web","cmd":"exec python3 -m http.server $PORT0",
		"healthChecks":[{"protocol":"HTTP","intervalSeconds":0.5}]}`)
	deployed(t, cluster)
	stream := subscribe(t, cluster.URL()+"/v2/events")
	cluster.Elect(0, 0)
	stream.end()
	results := func() []any {
		return at(t, must(t, "GET", cluster.URL()+"/v2/apps/web", nil), "app", "tasks", 0, "healthCheckResults").([]any)
	}
	eventually(t, "health is known again", func() bool { return len(results()) == 1 })
}

func TestNothingIsLeftOfACrashedEmulator(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	binary := filepath.Join(dir, "marathon-emulator")
	if output, err := exec.Command("go", "build", "-o", binary, "./cmd/marathon-emulator").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			sandboxes := t.TempDir()
			command := exec.Command(binary, "-listen", "127.0.0.1:0", "-dir", sandboxes)
			command.Stderr = os.Stderr
			command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			output, err := command.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := command.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = command.Process.Kill() })
			line, err := bufio.NewReader(output).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			url := strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
			must(t, "POST", url+"/v2/apps", strings.Replace(tryOut, `"instances":1`, `"instances":2`, 1))
			must(t, "POST", url+"/v2/apps", `{"id":"host","cmd":"setsid sleep 1000 & sleep 1000 & exec python3 -m http.server $PORT0"}`)
			var addresses []string
			eventually(t, "all tasks run", func() bool {
				addresses = nil
				for _, task := range must(t, "GET", url+"/v2/tasks?status=running", nil)["tasks"].([]any) {
					addresses = append(addresses, fmt.Sprintf("127.0.0.1:%v", at(t, task, "ports", 0)))
				}
				return len(addresses) == 3
			})
			for _, address := range addresses {
				serving(t, address)
			}
			if found := taskProcesses(t, sandboxes); len(found) < 5 {
				t.Fatalf("found the processes %v", found)
			}
			if err := command.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			_ = command.Wait() // how it ended was asked for
			eventually(t, "no process is left", func() bool { return len(taskProcesses(t, sandboxes)) == 0 })
			for _, address := range addresses {
				if _, err := net.Dial("tcp", address); err == nil {
					t.Errorf("%s is still open", address)
				}
			}
		})
	}
}

func TestForwardedConnectionsCarryBodiesBothWays(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", map[string]any{
		"id": "echo", "networks": []any{map[string]any{"mode": "container/bridge"}},
		"container": map[string]any{"type": "MESOS", "portMappings": []any{map[string]any{"containerPort": 7000}}},
		"cmd": `exec python3 -c '
import http.server
class Echo(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("", 7000), Echo).serve_forever()'`,
	})
	deployed(t, cluster)
	address := hostAddress(cluster.Tasks("echo")[0], 0)
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	eventually(t, "the echo answers", func() bool {
		response, err := http.Post("http://"+address+"/", "application/octet-stream", bytes.NewReader(body))
		if err != nil {
			return false
		}
		defer response.Body.Close()
		got, err := io.ReadAll(response.Body)
		return err == nil && bytes.Equal(got, body)
	})
}

func TestTimesOfATaskAreInOrder(t *testing.T) {
	t.Parallel()
	cluster := start(t, marathon.Options{})
	must(t, "POST", cluster.URL()+"/v2/apps", `{"id":"a","cmd":"sleep 1000"}`)
	deployed(t, cluster)
	task := at(t, must(t, "GET", cluster.URL()+"/v2/apps/a/tasks", nil), "tasks", 0)
	staged, err1 := time.Parse(time.RFC3339Nano, at(t, task, "stagedAt").(string))
	started, err2 := time.Parse(time.RFC3339Nano, at(t, task, "startedAt").(string))
	if err1 != nil || err2 != nil || started.Before(staged) {
		t.Errorf("staged %v (%v), started %v (%v)", staged, err1, started, err2)
	}
}
