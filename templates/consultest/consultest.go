// Package consultest runs a real Consul server for tests. It fails the test on
// anything unexpected and ends what it started.
package consultest

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

const patience = 30 * time.Second

// Server is a real Consul, alone in its datacenter.
type Server struct {
	t       testing.TB
	Address string
	Client  *api.Client
	// Stop kills it; Run runs it again with the same data.
	Stop func()
	args []string
}

// Start runs a server and returns when it has a leader.
func Start(t testing.TB) *Server {
	t.Helper()
	path := binary(t)
	ports := freePorts(t, 4)
	s := &Server{t: t, Address: fmt.Sprintf("127.0.0.1:%d", ports[0])}
	s.args = []string{
		path, "agent", "-server", "-bootstrap-expect=1", "-bind=127.0.0.1", "-node=node-1", "-data-dir=" + t.TempDir(), "-log-level=warn",
		"-http-port", fmt.Sprint(ports[0]), "-server-port", fmt.Sprint(ports[1]),
		"-serf-lan-port", fmt.Sprint(ports[2]), "-serf-wan-port", fmt.Sprint(ports[3]),
		"-hcl", `performance { raft_multiplier = 1 } ports { dns = -1, grpc = -1, grpc_tls = -1 } disable_update_check = true`,
	}
	client, err := api.NewClient(&api.Config{Address: s.Address})
	if err != nil {
		t.Fatal(err)
	}
	s.Client = client
	s.Run()
	return s
}

// Run runs it again after [Server.Stop].
func (s *Server) Run() {
	s.t.Helper()
	cmd := exec.Command(s.args[0], s.args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	stopped := false
	s.Stop = func() {
		if !stopped {
			stopped = true
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	}
	s.t.Cleanup(s.Stop)
	Until(s.t, "Consul has a leader and its own node", func() error {
		leader, err := s.Client.Status().Leader()
		if err != nil || leader == "" {
			return fmt.Errorf("leader %q: %v", leader, err)
		}
		nodes, _, err := s.Client.Catalog().Nodes(nil)
		if err != nil || len(nodes) == 0 {
			return fmt.Errorf("%d nodes: %v", len(nodes), err)
		}
		return nil
	})
}

// Put sets a key.
func (s *Server) Put(key, value string) {
	s.t.Helper()
	if _, err := s.Client.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil); err != nil {
		s.t.Fatal(err)
	}
}

func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

// Until waits for the condition, and fails the test if it does not come true.
func Until(t testing.TB, what string, condition func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := condition()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for: %s: %v", what, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// binary is bin/consul of the repository, or the one on the PATH.
func binary(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; ; dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "consul")
		if _, err := os.Stat(path); err == nil {
			return path
		}
		if dir == filepath.Dir(dir) {
			break
		}
	}
	path, err := exec.LookPath("consul")
	if err != nil {
		t.Fatal("consul is not there: make tools")
	}
	return path
}
