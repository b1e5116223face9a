package bootstrap

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// TestOneMachineIsEverything has mi-lb build a platform on the machine that it runs
// on, which has nothing but what an installer leaves.
func TestOneMachineIsEverything(t *testing.T) {
	h := hosts.Start(t, hosts.Spec{Names: []string{"single"}})
	m := h.Machine("single")
	ctx := context.Background()
	variables := "domain=apps.test zookeeper_heap=96m marathon_java_opts=-Xmx64m"
	for name, program := range map[string]string{"": programs.miLB, "consul_file": programs.consul, "mesos_file": programs.mesos, "marathon_file": programs.marathon} {
		content, err := os.ReadFile(program)
		if err != nil {
			t.Fatal(err)
		}
		path := "/root/" + filepath.Base(program)
		if err := m.Write(ctx, path, string(content), "755"); err != nil {
			t.Fatal(err)
		}
		if name != "" {
			variables += " " + name + "=" + path
		}
	}
	bootstrap := fmt.Sprintf("cd /root && ./mi-lb bootstrap --local -e private_ipv4=%s -e '%s' --yes 2>&1", m.Address, variables)
	said, err := m.Run(ctx, bootstrap)
	if err != nil || !strings.Contains(said, "The platform works.") {
		log, _ := m.Run(ctx, "cat /var/lib/mi-lb/bootstrap/logs/*.log | tail -c 8000")
		t.Fatalf("%v\n%s\n%s", err, said, log)
	}
	said, err = m.Run(ctx, bootstrap)
	if err != nil || !strings.Contains(said, "Nothing to do") {
		t.Errorf("a second time: %v\n%s", err, said)
	}
	p := &platform{operator: &operator{t: t, hosts: h}}
	p.container(t, "single", "here")
	eventually(t, "the edge serves a container", func(ctx context.Context) error { return p.ask(ctx, "single", "here.apps.test", "here\n") })
	response, err := http.Get("http://" + m.Address.String() + ":8080/v2/apps")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a login Marathon answers %s", response.Status)
	}
}
