package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// static is one service of a file: name, tags, and the backends behind it.
type static struct {
	name     string
	tags     []string
	backends []*edge.Backend
}

// writeServices replaces the file of static services, all at once.
func writeServices(t *testing.T, path string, all ...static) {
	t.Helper()
	var list []any
	for _, s := range all {
		instances := []any{}
		for _, b := range s.backends {
			instances = append(instances, map[string]any{"address": b.Address(), "id": b.Name})
		}
		list = append(list, map[string]any{"name": s.name, "tags": s.tags, "instances": instances})
	}
	text, err := yaml.Marshal(map[string]any{"services": list})
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

var bindLine = regexp.MustCompile(`(?m)^\s*bind (\S+)`)

// checkBinds fails the test if HAProxy's file binds an address twice, or a port that
// is not among those allowed. Sockets by which HAProxy reaches itself have no port.
func checkBinds(t *testing.T, e *edge.Edge, allowed ...int) {
	t.Helper()
	seen, ports := map[string]bool{}, 0
	for _, match := range bindLine.FindAllStringSubmatch(string(e.Ask("/_haproxy_getconfig")), -1) {
		address := match[1]
		if seen[address] {
			t.Errorf("two binds of %s", address)
		}
		seen[address] = true
		if strings.HasPrefix(address, "abns@") {
			continue
		}
		ports++
		_, text, err := net.SplitHostPort(address)
		port, numberErr := strconv.Atoi(text)
		if err != nil || numberErr != nil || !slices.Contains(allowed, port) {
			t.Errorf("a bind of %s, allowed are %v", address, allowed)
		}
	}
	if ports != len(allowed) {
		t.Errorf("binds of %v, want the ports %v", seen, allowed)
	}
}

// listeners is how many sockets of this machine listen on the port.
func listeners(t *testing.T, port int) int {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	const listening = "0A"
	count := 0
	for line := range bytes.Lines(table) {
		fields := strings.Fields(string(line))
		if len(fields) > 3 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) && fields[3] == listening {
			count++
		}
	}
	return count
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	_, text, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func TestWhoHasAPortOrAHostKeepsItAlsoAcrossRestarts(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	file := filepath.Join(t.TempDir(), "services.yaml")
	port := edge.FreePort(t)
	// A backend each: who shares one is the same service.
	incumbent := func() *edge.Backend { return edge.StartBackend(t, "incumbent") }
	rivals := map[string]*edge.Backend{}
	for _, name := range []string{"a-host", "a-port", "b-port"} {
		rivals[name] = edge.StartBackend(t, "rival")
	}
	// By name alone every rival would win.
	incumbents := []static{{"m-host", []string{"mi-lb.host=shop.example.com", "mi-lb.path=/cart"}, []*edge.Backend{incumbent()}}}
	writeServices(t, file, incumbents...)
	putApp(t, cluster, document(t, "/m-port", port, labels("mi-lb.mode", "http")), incumbent())
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}, Config: map[string]any{"file": file}})
	e.WaitPort(port, "incumbent")
	byPort := loadPort(t, port)
	byHost := edge.StartLoad(t, edge.LoadOptions{Address: e.HTTPAddress, Host: "shop.example.com", Path: "/cart"})

	writeServices(t, file, append(incumbents,
		static{"a-host", []string{"mi-lb.host=Shop.Example.com", "mi-lb.path=/cart/"}, []*edge.Backend{rivals["a-host"]}},
		static{"a-port", []string{fmt.Sprintf("mi-lb.port=%d", port)}, []*edge.Backend{rivals["a-port"]}},
	)...)
	putApp(t, cluster, document(t, "/b-port", port, labels("mi-lb.mode", "http")), rivals["b-port"])
	rule := func() {
		t.Helper()
		for _, loser := range []struct{ code, service string }{{"port-taken", "a-port"}, {"port-taken", "b-port"}, {"route-taken", "a-host"}} {
			edge.Wait(t, "the finding for "+loser.service, func() error { return hasFinding(e, loser.code, loser.service) })
		}
		for _, f := range e.Findings() {
			if strings.HasPrefix(f.Service, "m-") {
				t.Errorf("a finding for who has it: %v", f)
			}
		}
		// The rivals serve under what nobody else has.
		for _, host := range []string{"a-host.test", "a-port.test", "b-port.test"} {
			e.WaitHTTP(host, "rival")
		}
		checkBinds(t, e, portOf(t, e.HTTPAddress), port)
		edge.Wait(t, "one listener", func() error {
			if n := listeners(t, port); n != 1 {
				return fmt.Errorf("%d sockets listen on port %d", n, port)
			}
			return nil
		})
	}
	rule()
	byPort.WaitServedBy("incumbent")
	byHost.WaitServedBy("incumbent")

	e.Kill()
	e.Start()
	e.WaitReady()
	rule()
	e.HandOver()
	e.Start()
	e.WaitReady()
	rule()
	byPort.WaitServedBy("incumbent")
	byHost.WaitServedBy("incumbent")
	byPort.Stop()
	byHost.Stop()

	// With HAProxy, too.
	e.Restart()
	e.WaitReady()
	rule()
	e.WaitPort(port, "incumbent")
	if a, err := e.HTTP("shop.example.com", "/cart"); err != nil || a.Body != "incumbent" {
		t.Errorf("after a restart: %+v %v", a, err)
	}

	// Who does not want it any more leaves it to the next by name.
	if err := cluster.RemoveApp("/m-port"); err != nil {
		t.Fatal(err)
	}
	writeServices(t, file,
		static{"a-host", []string{"mi-lb.host=shop.example.com", "mi-lb.path=/cart"}, []*edge.Backend{rivals["a-host"]}},
		static{"a-port", []string{fmt.Sprintf("mi-lb.port=%d", port)}, []*edge.Backend{rivals["a-port"]}},
	)
	e.WaitPort(port, "rival")
	edge.Wait(t, "the other one has the host", func() error {
		if a, err := e.HTTP("shop.example.com", "/cart"); err != nil || a.Body != "rival" {
			return fmt.Errorf("%+v %v", a, err)
		}
		return nil
	})
}

func TestPortsOfTheEdgeItselfCannotBeHad(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	file := filepath.Join(t.TempDir(), "services.yaml")
	good := edge.StartBackend(t, "good")
	thief := func() *edge.Backend { return edge.StartBackend(t, "thief") }
	goodPort, appID := edge.FreePort(t), edge.FreePort(t)
	writeServices(t, file, static{"good", []string{fmt.Sprintf("mi-lb.port=%d", goodPort)}, []*edge.Backend{good}})
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}, Config: map[string]any{
		"file": file, "listen.app_id": []string{fmt.Sprintf("127.0.0.1:%d", appID)},
	}})
	http, admin := portOf(t, e.HTTPAddress), portOf(t, e.Admin)
	load, byPort := e.Load("good.test"), loadPort(t, goodPort)
	putApp(t, cluster, document(t, "/a-http", http, nil), thief())
	putApp(t, cluster, document(t, "/a-admin", admin, labels("HAPROXY_0_MODE", "http")), thief())
	writeServices(t, file,
		static{"good", []string{fmt.Sprintf("mi-lb.port=%d", goodPort)}, []*edge.Backend{good}},
		static{"a-app-id", []string{fmt.Sprintf("mi-lb.port=%d", appID)}, []*edge.Backend{thief()}},
		static{"a-fabio", []string{fmt.Sprintf("urlprefix-:%d proto=tcp", http)}, []*edge.Backend{thief()}},
	)
	for _, service := range []string{"a-http", "a-admin", "a-app-id", "a-fabio"} {
		edge.Wait(t, "the finding for "+service, func() error { return hasFinding(e, "port-taken", service) })
		if service != "a-fabio" { // mode tcp has no host
			e.WaitHTTP(service+".test", "thief")
		}
	}
	checkBinds(t, e, http, goodPort, appID)
	load.WaitServedBy("good")
	load.Stop()
	byPort.Stop()
	if n := listeners(t, admin); n != 1 {
		t.Errorf("%d sockets listen on the admin port", n)
	}
}

func TestAPortOfAnotherProgramIsOpenedWhenThatGoesAway(t *testing.T) {
	t.Parallel()
	cluster := startMarathon(t, marathon.Options{Fake: true})
	other, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", edge.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	busy := other.Addr().(*net.TCPAddr).Port
	first, later := edge.FreePort(t), edge.FreePort(t)
	web := edge.StartBackend(t, "web")
	putApp(t, cluster, document(t, "/first", first, nil), web)
	putApp(t, cluster, document(t, "/busy", busy, nil), web)
	// It is busy from the start, and HAProxy starts all the same.
	e := startEdge(t, edge.Options{Marathon: [][]string{cluster.URLs()}})
	e.WaitPort(first, "web")
	load, byPort := e.Load("busy.test"), loadPort(t, first)
	edge.Wait(t, "the finding", func() error { return hasFinding(e, "port-busy", "busy") })
	putApp(t, cluster, document(t, "/later", later, nil), web)
	e.WaitPort(later, "web")
	checkBinds(t, e, portOf(t, e.HTTPAddress), first, later)
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	e.WaitPort(busy, "web")
	edge.Wait(t, "the finding goes", func() error { return noFindings(e) })
	checkBinds(t, e, portOf(t, e.HTTPAddress), first, later, busy)
	load.Stop()
	byPort.Stop()
}
