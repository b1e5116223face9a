package sandbox_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/sandbox"
)

// binaries are built once for all tests, and removed with the last of them.
var binaries struct {
	sync.Once
	dir, path string
	err       error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if binaries.dir != "" {
		os.RemoveAll(binaries.dir)
	}
	os.Exit(code)
}

func binary(t *testing.T) string {
	t.Helper()
	binaries.Do(func() {
		if binaries.dir, binaries.err = os.MkdirTemp("", "sandbox-test-"); binaries.err == nil {
			binaries.path, binaries.err = sandbox.Build(context.Background(), binaries.dir)
		}
	})
	if binaries.err != nil {
		t.Fatal(binaries.err)
	}
	return binaries.path
}

func until(t *testing.T, what string, holds func() error) {
	t.Helper()
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err = holds(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

func webserver(servicePort int) string {
	return fmt.Sprintf(`{
		"id": "webserver", "cmd": "python3 -m http.server 8080", "cpus": 0.5, "mem": 64.0, "instances": 1,
		"container": {"type": "DOCKER", "docker": {"image": "python", "network": "BRIDGE",
		"portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": %d, "protocol": "tcp"}]}}}`, servicePort)
}

func post(t *testing.T, site *sandbox.Site, app string) {
	t.Helper()
	response, err := http.Post(site.Marathon.URL()+"/v2/apps", "application/json", strings.NewReader(app))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, _ := io.ReadAll(response.Body); response.StatusCode != http.StatusCreated {
		t.Fatalf("%s: %s", response.Status, body)
	}
}

func fetch(address, host string) error {
	request, err := http.NewRequest(http.MethodGet, "http://"+address+"/", nil)
	if err != nil {
		return err
	}
	if host != "" {
		request.Host = host
	}
	response, err := (&http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || !strings.Contains(string(body), "Directory listing")) {
		err = fmt.Errorf("%s: %.200s", response.Status, body)
	}
	return err
}

func TestAnAppIsReachedThroughEveryEdge(t *testing.T) {
	s, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	dc1 := s.Site("dc1")
	post(t, dc1, webserver(9000))
	for _, site := range s.Sites {
		for _, host := range []string{"webserver.mi-lb.example.com", "python.mi-lb.example.com"} {
			until(t, host+" on the edge of "+site.Name, func() error { return fetch(site.Edge.HTTP, host) })
		}
		until(t, "service port on the edge of "+site.Name, func() error {
			return fetch(net.JoinHostPort(site.Edge.ServicePortAddress, "9000"), "")
		})
	}

	// As Registrator names it, where it runs and only there.
	registered := func(datacenter, service string) []*api.CatalogService {
		found, _, err := dc1.Consul.Client().Catalog().Service(service, "", &api.QueryOptions{Datacenter: datacenter})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	found := registered("dc1", "python")
	if len(found) != 1 {
		t.Fatalf("in Consul: %+v", found)
	}
	service := found[0]
	task := dc1.Marathon.Tasks("webserver")[0]
	if parts := strings.Split(service.ServiceID, ":"); len(parts) != 3 || parts[0] != dc1.Consul.Node() || !strings.HasPrefix(parts[1], "mesos-") || parts[2] != "8080" {
		t.Errorf("id %q", service.ServiceID)
	}
	if service.ServiceAddress != dc1.Address.String() || service.ServicePort != task.Ports[0].HostPort {
		t.Errorf("at %s:%d, the task is at %+v", service.ServiceAddress, service.ServicePort, task.Ports)
	}
	if elsewhere := registered("dc2", "python"); len(elsewhere) > 0 {
		t.Errorf("in dc2 too: %+v", elsewhere)
	}

	// An agent that forgot what it had is told again, as Registrator would.
	if err := dc1.Consul.DeregisterService(t.Context(), service.ServiceID); err != nil {
		t.Fatal(err)
	}
	until(t, "registered again", func() error {
		if len(registered("dc1", "python")) == 0 {
			return errors.New("not yet")
		}
		return nil
	})

	request, _ := http.NewRequest(http.MethodDelete, dc1.Marathon.URL()+"/v2/apps/webserver", nil)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	until(t, "gone from Consul", func() error {
		if left := registered("dc1", "python"); len(left) > 0 {
			return fmt.Errorf("%+v", left)
		}
		return nil
	})
}

func TestHAProxyServesOnWithoutMiLBAndTheNextOneTakesItOver(t *testing.T) {
	s, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	}()
	post(t, s.Sites[0], webserver(9000))
	edge := s.Sites[0].Edge
	served := func() error { return fetch(edge.HTTP, "webserver.mi-lb.example.com") }
	// By its port first: that is only there once HAProxy has been reloaded for it. The
	// worker of before can still answer a request that waited for the app to listen, when
	// the new one has found nobody listening and looks again in a second.
	until(t, "the app by its service port", func() error { return fetch(net.JoinHostPort(edge.ServicePortAddress, "9000"), "") })
	until(t, "the app", served)
	before := edge.PID()
	edge.Kill()
	if edge.PID() != 0 || edge.Ended() != nil {
		t.Error("it runs")
	}
	if err := served(); err != nil {
		log, _ := os.ReadFile(edge.Log)
		t.Errorf("%v; the edge said:\n%s", err, log)
	}
	if err := edge.Start(); err != nil {
		t.Fatal(err)
	}
	if err := edge.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if edge.PID() == before {
		t.Error("it is the same")
	}
	if err := served(); err != nil {
		t.Error(err)
	}
	if log, err := os.ReadFile(edge.Log); err != nil || !strings.Contains(string(log), "took over the running HAProxy") {
		t.Errorf("it did not take HAProxy over: %v\n%s", err, log)
	}
}

func TestNothingIsLeftOfWhatWasStopped(t *testing.T) {
	temporary := shortTempDir(t)
	t.Setenv("TMPDIR", temporary)
	s, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t)})
	if err != nil {
		t.Fatal(err)
	}
	post(t, s.Sites[0], webserver(9000))
	until(t, "the app", func() error { return fetch(s.Sites[1].Edge.HTTP, "webserver.mi-lb.example.com") })
	// A crashed mi-lb leaves its HAProxy to whoever comes next, which is Stop.
	s.Sites[1].Edge.Kill()
	if len(processesOf(temporary)) < 6 {
		t.Fatalf("the test does not see the processes: %v", processesOf(temporary))
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	nothingLeft(t, temporary)
	if err := s.Stop(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

func TestNothingIsLeftOfAStartThatFailed(t *testing.T) {
	temporary := shortTempDir(t)
	t.Setenv("TMPDIR", temporary)
	_, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t), Edge: func(datacenter string, c map[string]any) {
		if datacenter == "dc2" {
			c["domian"] = "example.com"
		}
	}})
	if err == nil || !strings.Contains(err.Error(), "dc2") || !strings.Contains(err.Error(), "domian") {
		t.Errorf("it does not say what is wrong: %v", err)
	}
	nothingLeft(t, temporary)
}

func TestAPortThatIsTakenIsNamedWithItsSetting(t *testing.T) {
	address := netip.MustParseAddr("127.77.3.1")
	var ports []int
	for range 5 {
		listener, err := net.Listen("tcp", netip.AddrPortFrom(address, 0).String())
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		ports = append(ports, listener.Addr().(*net.TCPAddr).Port)
	}
	temporary := shortTempDir(t)
	t.Setenv("TMPDIR", temporary)
	_, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t), ServicePorts: ports[4:], Datacenters: []sandbox.Datacenter{
		{Name: "dc1", Address: address, Marathon: ports[0], Consul: ports[1], HTTP: ports[2], Admin: ports[3]}, {Name: "dc2"},
	}})
	if err == nil {
		t.Fatal("it started")
	}
	for i, setting := range []string{"dc1.marathon", "dc1.consul", "dc1.http", "dc1.admin", "service-port"} {
		line := ""
		for l := range strings.Lines(err.Error()) {
			if strings.Contains(l, "port "+strconv.Itoa(ports[i])+" on 127.77.3.1") {
				line = l
			}
		}
		if !strings.Contains(line, "--"+setting+"=") || !strings.Contains(line, "make demo DEMO=--"+setting+"=") {
			t.Errorf("port %d, %s: %v", ports[i], setting, err)
		}
	}
	var taken *sandbox.TakenError
	if !errors.As(err, &taken) {
		t.Errorf("%T", err)
	}
	nothingLeft(t, temporary)
}

func TestDatacentersNeedAddressesOfTheirOwn(t *testing.T) {
	home := netip.MustParseAddr("127.77.4.1")
	for name, datacenters := range map[string][]sandbox.Datacenter{
		"another datacenter's": {{Name: "dc1", Address: home}, {Name: "dc2", Address: home}},
		"not an IPv4 loopback": {{Name: "dc1", Address: netip.MustParseAddr("192.0.2.1")}},
		"name of its own":      {{Name: "dc1"}, {Name: "dc1"}},
		"both want":            {{Name: "dc1", Address: home, Marathon: 8080, HTTP: 8080}},
	} {
		if _, err := sandbox.Start(t.Context(), sandbox.Options{Binary: binary(t), Datacenters: datacenters}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// shortTempDir is for sockets, whose paths must be short.
func shortTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "sbx-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// processesOf are those whose command line or working directory is in the folder.
func processesOf(folder string) []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		wd, _ := os.Readlink(filepath.Join(filepath.Dir(path), "cwd"))
		if strings.Contains(string(line), folder+"/") || strings.HasPrefix(wd, folder+"/") {
			found = append(found, filepath.Base(filepath.Dir(path))+" "+strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	slices.Sort(found)
	return found
}

// guards are this program's children that are guards.
func guards() []string {
	var found []string
	lines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range lines {
		line, _ := os.ReadFile(path)
		status, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if strings.HasSuffix(string(line), "\x00mi-lb-guard\x00") && strings.Contains(string(status), fmt.Sprintf("\nPPid:\t%d\n", syscall.Getpid())) {
			found = append(found, filepath.Dir(path))
		}
	}
	return found
}

func nothingLeft(t *testing.T, temporary string) {
	t.Helper()
	if left := processesOf(temporary); len(left) > 0 {
		t.Errorf("processes are left:\n%s", strings.Join(left, "\n"))
	}
	if left := guards(); len(left) > 0 {
		t.Errorf("guards are left: %v", left)
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
