package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/child"
)

// Options of an agent. The zero value is a server of dc1 that is its own leader.
type Options struct {
	// Datacenter is "dc1" where it is empty, Node "<datacenter>-server" or "-client".
	Datacenter string
	Node       string
	// Client makes it an agent without a server; it needs Join.
	Client bool
	// Join and JoinWAN are Serf addresses to join, retried until they answer:
	// see [Agent.SerfLAN] and [Agent.SerfWAN].
	Join    []string
	JoinWAN []string
	// PrimaryDatacenter is needed where ACLs span datacenters.
	PrimaryDatacenter string
	// ManagementToken turns ACLs on, denying by default; it is the token that may
	// do everything, and a UUID. It is also what the agent itself uses.
	ManagementToken string
	// TLS adds an HTTPS listener with the files of [NewCertificates].
	TLS *Certificates
	// UnixSocket serves the API on a socket too: see [Agent.Socket].
	UnixSocket bool
	// Bind is 127.0.0.1 where it is empty.
	Bind  string
	Ports Ports
	// DataDir outlives the agent. Where it is empty, data lives in a temporary
	// folder that [Agent.Stop] removes.
	DataDir string
	// Config is merged over the configuration that the rest gives.
	Config map[string]any
	// LogOutput gets what the agent prints; an error shows the last of it anyway.
	LogOutput io.Writer
}

// Agent is a running Consul agent, a child of this process.
type Agent struct {
	options Options
	binary  string
	dir     string // configuration, socket, and data that does not outlive the agent
	client  *api.Client

	mu      sync.Mutex
	process *process
}

// Start runs an agent and returns when its HTTP API answers; see
// [Agent.WaitLeader] for when it is of use. The context ends the wait, not the
// agent: that is what [Agent.Stop] is for.
func Start(ctx context.Context, options Options) (*Agent, error) {
	binary, err := Binary(ctx)
	if err != nil {
		return nil, err
	}
	options.Datacenter = cmp.Or(options.Datacenter, "dc1")
	options.Bind = cmp.Or(options.Bind, "127.0.0.1")
	role := "server"
	if options.Client {
		role = "client"
	}
	options.Node = cmp.Or(options.Node, options.Datacenter+"-"+role)
	// A free port can be taken by somebody else before the agent binds it.
	for attempt := 0; ; attempt++ {
		a, err := start(ctx, binary, options)
		if err == nil || attempt == 3 || !errors.Is(err, errPortTaken) {
			return a, err
		}
	}
}

func start(ctx context.Context, binary string, options Options) (*Agent, error) {
	var err error
	if options.Ports, err = options.Ports.withFree(options.Bind, options.TLS != nil); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "consul-")
	if err != nil {
		return nil, fmt.Errorf("start Consul agent %s: %w", options.Node, err)
	}
	a := &Agent{options: options, binary: binary, dir: dir}
	a.client, err = api.NewClient(&api.Config{Address: a.HTTPAddress(), Scheme: "http", Token: options.ManagementToken})
	if err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("client of Consul agent %s: %w", options.Node, err)
	}
	if err := a.launch(ctx); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return a, nil
}

var errPortTaken = errors.New("port taken")

func (a *Agent) launch(ctx context.Context) error {
	configuration, err := json.MarshalIndent(a.configuration(), "", "  ")
	if err != nil {
		return fmt.Errorf("write the configuration of Consul agent %s: %w", a.options.Node, err)
	}
	file := filepath.Join(a.dir, "agent.json")
	if err := os.WriteFile(file, configuration, 0o600); err != nil {
		return fmt.Errorf("write the configuration of Consul agent %s: %w", a.options.Node, err)
	}
	p, err := run(a.binary, []string{"agent", "-config-file", file}, a.options.LogOutput)
	if err != nil {
		return fmt.Errorf("start Consul agent %s: %w", a.options.Node, err)
	}
	if err := a.waitAPI(ctx, p); err != nil {
		p.end(syscall.SIGKILL)
		return fmt.Errorf("start Consul agent %s: %w; it said:\n%s", a.options.Node, err, p.last.String())
	}
	a.mu.Lock()
	a.process = p
	a.mu.Unlock()
	return nil
}

func (a *Agent) waitAPI(ctx context.Context, p *process) error {
	for {
		conn, err := net.DialTimeout("tcp", a.HTTPAddress(), time.Second)
		if err == nil {
			conn.Close()
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.Ended():
			if bytes.Contains(p.last.Bytes(), []byte("address already in use")) {
				return errPortTaken
			}
			return fmt.Errorf("it ended: %v", p.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends the agent and removes what it wrote, except DataDir. It is safe to
// call twice.
func (a *Agent) Stop() {
	a.signal(syscall.SIGTERM)
	os.RemoveAll(a.dir)
}

// Kill ends the agent as a crash would; [Agent.Restart] brings it back.
func (a *Agent) Kill() { a.signal(syscall.SIGKILL) }

func (a *Agent) signal(sig syscall.Signal) {
	a.mu.Lock()
	p := a.process
	a.process = nil
	a.mu.Unlock()
	if p != nil {
		p.end(sig)
	}
}

// Restart starts the agent again on the same ports, ending it first where it
// runs: with the data it had, or as empty as on the first day.
func (a *Agent) Restart(ctx context.Context, empty bool) error {
	a.Kill()
	if empty {
		if err := os.RemoveAll(a.dataDir()); err != nil {
			return fmt.Errorf("empty Consul agent %s: %w", a.options.Node, err)
		}
	}
	return a.launch(ctx)
}

// Pause stops the agent's process without ending its connections, as a hung
// machine would; Resume lets it go on.
func (a *Agent) Pause() error { return a.send(syscall.SIGSTOP) }

// Resume undoes Pause.
func (a *Agent) Resume() error { return a.send(syscall.SIGCONT) }

func (a *Agent) send(sig syscall.Signal) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process == nil {
		return fmt.Errorf("signal Consul agent %s: it does not run", a.options.Node)
	}
	return a.process.Signal(sig)
}

// PID is that of the agent's process, 0 while it does not run.
func (a *Agent) PID() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process == nil {
		return 0
	}
	return a.process.PID()
}

// Datacenter the agent is in.
func (a *Agent) Datacenter() string { return a.options.Datacenter }

// Node is the agent's node name.
func (a *Agent) Node() string { return a.options.Node }

// HTTPAddress is host:port of the plain API.
func (a *Agent) HTTPAddress() string { return a.at(a.options.Ports.HTTP) }

// HTTPSAddress is host:port of the API over TLS.
func (a *Agent) HTTPSAddress() string { return a.at(a.options.Ports.HTTPS) }

// SerfLAN is what agents of the same datacenter join.
func (a *Agent) SerfLAN() string { return a.at(a.options.Ports.SerfLAN) }

// SerfWAN is what servers of other datacenters join.
func (a *Agent) SerfWAN() string { return a.at(a.options.Ports.SerfWAN) }

// Ports the agent listens on.
func (a *Agent) Ports() Ports { return a.options.Ports }

// Socket is the path of the API's unix socket.
func (a *Agent) Socket() string { return filepath.Join(a.dir, "http.sock") }

func (a *Agent) at(port int) string {
	return net.JoinHostPort(a.options.Bind, strconv.Itoa(port))
}

func (a *Agent) dataDir() string {
	return cmp.Or(a.options.DataDir, filepath.Join(a.dir, "data"))
}

func (a *Agent) configuration() map[string]any {
	o := a.options
	// Consul's defaults are for real networks; on loopback a lost packet is no
	// packet, and nobody wants to wait.
	gossip := map[string]any{
		"gossip_interval": "20ms", "probe_interval": "200ms", "probe_timeout": "200ms", "suspicion_mult": 3,
	}
	addresses := map[string]any{"http": o.Bind}
	ports := map[string]any{
		"http": o.Ports.HTTP, "https": o.Ports.HTTPS, "dns": o.Ports.DNS, "grpc": -1, "grpc_tls": -1,
		"server": o.Ports.Server, "serf_lan": o.Ports.SerfLAN, "serf_wan": o.Ports.SerfWAN,
	}
	c := map[string]any{
		"datacenter": o.Datacenter, "node_name": o.Node, "data_dir": a.dataDir(),
		"server": !o.Client, "bind_addr": o.Bind, "client_addr": o.Bind, "addresses": addresses, "ports": ports,
		"performance": map[string]any{"raft_multiplier": 1},
		"gossip_lan":  gossip, "gossip_wan": gossip,
		"retry_interval": "500ms", "retry_interval_wan": "500ms",
		"leave_on_terminate": false, "skip_leave_on_interrupt": true,
		"disable_update_check": true, "log_level": "info",
	}
	if !o.Client {
		c["bootstrap"] = true
	}
	if len(o.Join) > 0 {
		c["retry_join"] = o.Join
	}
	if len(o.JoinWAN) > 0 {
		c["retry_join_wan"] = o.JoinWAN
	}
	if o.PrimaryDatacenter != "" {
		c["primary_datacenter"] = o.PrimaryDatacenter
	}
	if o.ManagementToken != "" {
		c["acl"] = map[string]any{
			"enabled": true, "default_policy": "deny",
			"tokens": map[string]any{"initial_management": o.ManagementToken, "agent": o.ManagementToken},
		}
	}
	if o.TLS != nil {
		addresses["https"] = o.Bind
		c["tls"] = map[string]any{"https": map[string]any{
			"ca_file": o.TLS.CAFile, "cert_file": o.TLS.CertFile, "key_file": o.TLS.KeyFile,
			"verify_incoming": true,
		}}
	}
	if o.UnixSocket {
		addresses["http"] = o.Bind + " unix://" + a.Socket()
	}
	maps.Copy(c, o.Config)
	return c
}

// Client of the agent's plain API, with the management token where there is one.
func (a *Agent) Client() *api.Client { return a.client }

// WaitLeader returns when the agent's datacenter has a leader and the agent is
// in the catalog: from then on registrations work.
func (a *Agent) WaitLeader(ctx context.Context) error {
	client := a.Client()
	var last error
	for {
		node, _, err := client.Catalog().Node(a.options.Node, (&api.QueryOptions{}).WithContext(ctx))
		if err == nil && node != nil && node.Node != nil {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for Consul agent %s to be in the catalog: %w (last: %v)", a.options.Node, ctx.Err(), last)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// WaitDatacenters returns when the agent can read the catalogs of all of them.
func (a *Agent) WaitDatacenters(ctx context.Context, names ...string) error {
	client := a.Client()
	for _, name := range names {
		for {
			q := (&api.QueryOptions{Datacenter: name}).WithContext(ctx)
			services, _, err := client.Catalog().Service("consul", "", q)
			if err == nil && len(services) > 0 {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for datacenter %s at Consul agent %s: %w (last: %v)", name, a.options.Node, ctx.Err(), err)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return nil
}

// process is an agent that runs, and the last that it said.
type process struct {
	*child.Process
	last *child.Tail
}

func run(path string, args []string, output io.Writer) (*process, error) {
	p := &process{last: &child.Tail{}}
	var out io.Writer = p.last
	if output != nil {
		out = io.MultiWriter(p.last, output)
	}
	command := exec.Command(path, args...)
	command.Stdout, command.Stderr = out, out
	var err error
	p.Process, err = child.Start(command, syscall.SIGKILL)
	return p, err
}

// end signals the process and waits for it; one that does not heed the signal
// within five seconds is killed.
func (p *process) end(sig syscall.Signal) {
	_ = p.Signal(syscall.SIGCONT)
	p.End(sig, 5*time.Second)
}
