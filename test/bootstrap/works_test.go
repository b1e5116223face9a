package bootstrap

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/ssh"
	"github.com/mi-lb/mi-lb/test/hosts"
)

// works looks at what verify says by other means.
func (p *platform) works(t *testing.T) {
	p.must("verify")
	management := p.secret("consul/token/management/secret")

	for _, d := range datacenters {
		m := p.hosts.Machine(d + "-control-1")
		leader := p.consul(t, m, management, http.MethodGet, "/v1/status/leader", nil)
		if !strings.Contains(leader, ":8300") {
			t.Errorf("%s: Consul's leader is %s", d, leader)
		}
		var wan []struct {
			Name   string
			Status int
		}
		decode(t, p.consul(t, m, management, http.MethodGet, "/v1/agent/members?wan=1", nil), &wan)
		alive := 0
		for _, member := range wan {
			if member.Status == 1 {
				alive++
			}
		}
		if alive != 6 {
			t.Errorf("%s: the WAN pool has %d members that are alive: %+v", d, alive, wan)
		}
		var nodes []struct{ Node string }
		decode(t, p.consul(t, m, management, http.MethodGet, "/v1/catalog/nodes", nil), &nodes)
		if len(nodes) != len(roles) {
			t.Errorf("%s: Consul knows %d nodes: %+v", d, len(nodes), nodes)
		}

		if got := p.consul(t, m, "", http.MethodGet, "/v1/catalog/nodes", nil); got != "[]" && !strings.Contains(got, "Permission denied") {
			t.Errorf("%s: without a token Consul lists nodes: %s", d, got)
		}
		if got := p.consul(t, m, "", http.MethodPut, "/v1/kv/anybody", []byte("x")); !strings.Contains(got, "Permission denied") {
			t.Errorf("%s: without a token Consul writes: %s", d, got)
		}
		var self struct {
			DebugConfig struct {
				EncryptKey string
				TLS        struct {
					InternalRPC struct{ VerifyIncoming, VerifyOutgoing, VerifyServerHostname bool }
				}
			}
		}
		decode(t, p.consul(t, m, management, http.MethodGet, "/v1/agent/self", nil), &self)
		if rpc := self.DebugConfig.TLS.InternalRPC; !rpc.VerifyIncoming || !rpc.VerifyOutgoing || !rpc.VerifyServerHostname || self.DebugConfig.EncryptKey == "" {
			t.Errorf("%s: Consul's agents talk with %+v", d, self.DebugConfig)
		}

		quorum := map[string]int{}
		for _, role := range roles[:3] {
			status, err := fourLetters(p.hosts.Machine(d+"-"+role).Address.String()+":2181", "srvr")
			if err != nil {
				t.Error(err)
			}
			for _, mode := range []string{"leader", "follower"} {
				if strings.Contains(status, "Mode: "+mode) {
					quorum[mode]++
				}
			}
		}
		if quorum["leader"] != 1 || quorum["follower"] != 2 {
			t.Errorf("%s: ZooKeeper has %v", d, quorum)
		}
	}

	// A container on a compute node of each datacenter, and one program that all run.
	p.container(t, "dc1-worker-1", "here")
	p.container(t, "dc2-worker-1", "there")
	for _, d := range datacenters {
		for _, name := range []string{"here", "there"} {
			eventually(t, fmt.Sprintf("%s's edge serves the container %s", d, name), func(ctx context.Context) error {
				return p.ask(ctx, d+"-edge-1", name+".apps.test", name+"\n")
			})
		}
	}
	for _, m := range p.hosts.Machines {
		eventually(t, m.Name+" resolves a name of Consul's", func(ctx context.Context) error {
			_, err := m.Run(ctx, "getent ahostsv4 here.service.dc1.consul && getent ahostsv4 "+hosts.Outside)
			return err
		})
	}
}

// secret is one of the platform's.
func (p *platform) secret(name string) string {
	p.t.Helper()
	r := p.must("secrets", "show", name, "--reveal")
	return strings.TrimSpace(r.stdout)
}

// dial is a connection to a machine as mi-lb has it.
func (p *platform) dial(t testing.TB, m *hosts.Machine) *ssh.Host {
	t.Helper()
	dialer := ssh.NewDialer(ssh.Options{KnownHosts: p.hosts.KnownHosts, ConfigFile: "none"})
	t.Cleanup(func() { dialer.Close() })
	host, err := dialer.Connect(context.Background(), ssh.Target{Name: m.Name, Connection: cluster.Connection{
		Host: m.Address.String(), User: hosts.Admin, KeyFile: p.hosts.KeyFile,
	}})
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// consul asks a machine's Consul agent and returns what it answers.
func (p *platform) consul(t *testing.T, m *hosts.Machine, token, method, path string, body []byte) string {
	t.Helper()
	client := p.dial(t, m).HTTPClient("tcp", "127.0.0.1:8500")
	answer, err := consulAnswer(context.Background(), client, token, method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func consulAnswer(ctx context.Context, client *http.Client, token, method, path string, body []byte) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://127.0.0.1:8500"+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	if token != "" {
		request.Header.Set("X-Consul-Token", token)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode >= http.StatusInternalServerError {
		err = fmt.Errorf("Consul answers %s: %s", response.Status, answer)
	}
	return string(bytes.TrimSpace(answer)), err
}

func decode(t *testing.T, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// fourLetters asks a ZooKeeper server.
func fourLetters(address, word string) (string, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, word); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

// container runs one on a machine, by Docker's own means, that answers with its name
// and comes back when the machine does.
func (p *platform) container(t *testing.T, machine, name string) {
	t.Helper()
	m := p.hosts.Machine(machine)
	ctx := context.Background()
	program, err := os.ReadFile(programs.testserver)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Write(ctx, "/tmp/testserver", string(program), "755"); err != nil {
		t.Fatal(err)
	}
	_, err = m.Run(ctx, fmt.Sprintf("tar -C /tmp -c testserver | docker import --change 'EXPOSE 80' - %[1]s && "+
		"docker run -d --name %[1]s --restart always -e SERVICE_NAME=%[1]s -P %[1]s /testserver -text %[1]s", name))
	if err != nil {
		t.Fatal(err)
	}
}

// ask requests a page of an edge and compares it.
func (p *platform) ask(ctx context.Context, edge, host, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.hosts.Machine(edge).Address.String()+"/", nil)
	if err != nil {
		return err
	}
	request.Host = host
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK || string(body) != want {
		return errors.New(response.Status + ": " + string(body))
	}
	return nil
}
