package consul_test

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

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/consul"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// TestTwoOfThreeServersAreLostForGood does what docs/bootstrap.md says to do then.
func TestTwoOfThreeServersAreLostForGood(t *testing.T) {
	w := newWorld(t)
	w.hosts = w.hosts.Without("x", "v")
	dc1 := w.platform.Cluster.Datacenters[0]
	servers := dc1.Nodes[:3]
	w.start(t, servers...)
	w.wait(t, servers...)
	for _, a := range w.pending(t, dc1) {
		if err := a.Do(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	management := w.platform.Secrets.ConsulToken(secrets.ManagementPurpose).Secret
	put := func(value string) {
		t.Helper()
		componenttest.Eventually(t, time.Minute, "Consul takes a value", func(context.Context) error {
			if status, body := w.call(t, "a", management, http.MethodPut, "/v1/kv/kept", value); status != http.StatusOK || !strings.Contains(body, "true") {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	has := func(node, value string) {
		t.Helper()
		componenttest.Eventually(t, time.Minute, node+" has the value", func(context.Context) error {
			if status, body := w.call(t, node, management, http.MethodGet, "/v1/kv/kept?raw", nil); status != http.StatusOK || !strings.Contains(body, value) {
				return fmt.Errorf("%d %s", status, body)
			}
			return nil
		})
	}
	saver := consul.NewServer().(component.Saver)

	put("before")
	var snapshot bytes.Buffer
	if err := saver.Save(t.Context(), w.platform, dc1, w.hosts, &snapshot); err != nil {
		t.Fatal(err)
	}
	put("after")
	has("c", "after")

	var raft struct {
		Servers []struct{ Node, Address string }
	}
	_, body := w.call(t, "a", management, http.MethodGet, "/v1/operator/raft/configuration", nil)
	if err := json.Unmarshal([]byte(body), &raft); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	address := ""
	for _, s := range raft.Servers {
		if s.Node == "a" {
			address = s.Address
		}
	}

	for _, name := range []string{"b", "c"} {
		w.processes[name].Kill()
		if err := os.RemoveAll(filepath.Join(w.root, name, "data")); err != nil {
			t.Fatal(err)
		}
	}
	componenttest.Eventually(t, time.Minute, "one of three has no quorum and nothing to save", func(ctx context.Context) error {
		if q := w.quorum(t); q.Lost == "" {
			return fmt.Errorf("%+v", q)
		}
		if err := saver.Save(ctx, w.platform, dc1, w.hosts, io.Discard); !errors.Is(err, component.ErrNotRunning) {
			return fmt.Errorf("%v", err)
		}
		return nil
	})

	// peers.json names the one that is left.
	w.processes["a"].Stop()
	data := filepath.Join(w.root, "a", "data")
	id, err := os.ReadFile(filepath.Join(data, "node-id"))
	if err != nil {
		t.Fatal(err)
	}
	peers := fmt.Sprintf("[{\"id\": %q, \"address\": %q, \"non_voter\": false}]\n", strings.TrimSpace(string(id)), address)
	if err := os.WriteFile(filepath.Join(data, "raft", "peers.json"), []byte(peers), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start(t, servers[0])
	has("a", "after")
	if _, err := os.Stat(filepath.Join(data, "raft", "peers.json")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Consul leaves peers.json: %v", err)
	}

	// The others are installed anew, and join.
	w.start(t, servers[1:]...)
	w.wait(t, servers...)
	has("c", "after")

	// What was written down before comes back, too.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+consul.HTTPAddress(servers[1])+"/v1/snapshot", &snapshot)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Consul-Token", management.Reveal())
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusOK {
		t.Errorf("restored: %s", response.Status)
	}
	has("a", "before")
	w.wait(t, servers...)
}
