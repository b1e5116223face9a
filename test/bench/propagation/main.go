// Command propagation measures how long a change in Consul takes until traffic
// follows it: real Consul, mi-lb, HAProxy and HTTP requests, on loopback.
//
//	go run ./test/bench/propagation [--services 100] [--changes 100] [--pause 100ms]
//
// It prints a table in Markdown. Every change is measured from when it is sent to the
// Consul agent, and from when the agent has confirmed it, to the first request that a
// new instance answers, or the last that one answers that is to have no more.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/edge"
)

func main() {
	services := flag.Int("services", 100, "services in Consul, with one instance each")
	changes := flag.Int("changes", 100, "changes of each kind to measure")
	pause := flag.Duration("pause", 100*time.Millisecond, "between two changes; without one, how often a node is read (20 times a second) is measured")
	flag.Parse()
	if *services < 1 || *changes < 1 || *pause < 0 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "propagation: --services and --changes are numbers above 0, --pause is a duration; see --help")
		os.Exit(2)
	}
	p := &program{}
	os.Exit(p.run(func() { measure(p, *services, *changes, *pause) }))
}

// bench is what is measured on.
type bench struct {
	p      *program
	agent  *consul.Agent
	edge   *edge.Edge
	client *client
}

// kind of change: what is done to an instance, and whether it then serves.
type kind struct {
	name   string
	serves bool
	do     func(ctx context.Context, service string, b *edge.Backend) error
}

func measure(p *program, services, changes int, pause time.Duration) {
	ctx := context.Background()
	binary, err := edge.Build(ctx, p.TempDir())
	p.check(err)
	agent, err := consul.Start(ctx, consul.Options{})
	p.check(err)
	p.Cleanup(agent.Stop)
	p.check(agent.WaitLeader(ctx))
	for i := range services {
		p.check(agent.RegisterService(ctx, registration(name(i), edge.StartBackend(p, fmt.Sprintf("old-%d", i)))))
	}
	b := &bench{p: p, agent: agent}
	b.edge = edge.Start(p, edge.Options{Binary: binary, Consul: "http://" + agent.HTTPAddress(), Config: map[string]any{
		"log.level": "info", "haproxy.drift_every": "5s",
	}})
	for i := range services {
		b.edge.WaitHTTP(name(i)+"."+edge.Domain, fmt.Sprintf("old-%d", i))
	}
	b.client = &client{address: b.edge.HTTPAddress}
	defer b.client.close()

	kinds := []kind{
		{"an instance appears", true, func(ctx context.Context, service string, backend *edge.Backend) error {
			return agent.RegisterService(ctx, registration(service, backend))
		}},
		{"it turns critical", false, func(ctx context.Context, _ string, backend *edge.Backend) error {
			return agent.SetCheck(ctx, backend.Name, api.HealthCritical)
		}},
		{"it turns passing", true, func(ctx context.Context, _ string, backend *edge.Backend) error {
			return agent.SetCheck(ctx, backend.Name, api.HealthPassing)
		}},
		{"it disappears", false, func(ctx context.Context, _ string, backend *edge.Backend) error {
			return agent.DeregisterService(ctx, backend.Name)
		}},
	}
	sent, confirmed := make([][]time.Duration, len(kinds)), make([][]time.Duration, len(kinds))
	for i := range changes {
		backend := edge.StartBackend(p, fmt.Sprintf("new-%d", i))
		for k, kind := range kinds {
			time.Sleep(pause)
			fromSent, fromConfirmed := b.change(ctx, kind, name(i%services), backend)
			sent[k], confirmed[k] = append(sent[k], fromSent), append(confirmed[k], fromConfirmed)
		}
		backend.Abort()
	}
	fmt.Printf("%d changes of each kind at %d services; %s; %s; HAProxy %s\n\n", changes, services, machine(), versionOf(ctx), b.edge.Status().HAProxy.Version)
	fmt.Println("| from a change in Consul to traffic | p50 | p99 | max | p50 since Consul confirmed | p99 | max |")
	fmt.Println("|---|---|---|---|---|---|---|")
	for k, kind := range kinds {
		fmt.Printf("| %s | %s | %s |\n", kind.name, figures(sent[k]), figures(confirmed[k]))
	}
	fmt.Printf("\nreloads: %d; requests that failed: %d\n", b.edge.Reloads(), b.client.failed)
}

func name(i int) string { return fmt.Sprintf("service-%d", i) }

func registration(service string, b *edge.Backend) *api.AgentServiceRegistration {
	return &api.AgentServiceRegistration{
		ID: b.Name, Name: service, Address: "127.0.0.1", Port: b.Port,
		Check: &api.AgentServiceCheck{CheckID: b.Name, TTL: "1h", Status: api.HealthPassing},
	}
}

// still is how many answers in a row by others say that an instance has no more
// traffic: the two of a service take turns.
const still = 50

// change makes one and asks until traffic follows. The times are how long after the
// change was sent, and after it was confirmed, that was.
func (b *bench) change(ctx context.Context, k kind, service string, backend *edge.Backend) (sent, confirmed time.Duration) {
	host := service + "." + edge.Domain
	done := make(chan time.Time, 1)
	begin := time.Now()
	go func() {
		err := k.do(ctx, service, backend)
		done <- time.Now()
		b.p.check(err)
	}()
	// at is when the newest answer that counts was there.
	at, others := begin, 0
	for deadline := begin.Add(edge.Patience); ; {
		body := b.client.ask(host)
		now := time.Now()
		if body == backend.Name {
			at, others = now, 0
		} else {
			others++
		}
		if k.serves && body == backend.Name {
			break
		}
		if !k.serves && others >= still && len(done) > 0 {
			break
		}
		if now.After(deadline) {
			b.p.Fatalf("%s: traffic of %s has not followed in %s", k.name, service, edge.Patience)
		}
	}
	return at.Sub(begin), max(0, at.Sub(<-done))
}

// client asks over one connection, one request after the other.
type client struct {
	address string
	conn    net.Conn
	reader  *bufio.Reader
	failed  int
}

func (c *client) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// ask returns the body, or "" for a request that failed, which is counted.
func (c *client) ask(host string) string {
	body, err := c.try(host)
	if err != nil {
		c.failed++
		c.close()
	}
	return body
}

func (c *client) try(host string) (string, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return "", err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	if err := c.conn.SetDeadline(time.Now().Add(edge.Patience)); err != nil {
		return "", err
	}
	if _, err := fmt.Fprintf(c.conn, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host); err != nil {
		return "", err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d", response.StatusCode)
	}
	if response.Close {
		c.close()
	}
	return string(body), err
}

// figures are p50, p99 and the largest, as cells.
func figures(all []time.Duration) string {
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)*percent+99)/100-1] }
	var cells []string
	for _, d := range []time.Duration{at(50), at(99), all[len(all)-1]} {
		cells = append(cells, fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000))
	}
	return strings.Join(cells, " | ")
}

func machine() string {
	model := runtime.GOARCH
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), model)
}

func versionOf(ctx context.Context) string {
	path, err := consul.Binary(ctx)
	if err != nil {
		return err.Error()
	}
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
