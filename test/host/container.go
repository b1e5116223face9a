package host

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/mi-lb/mi-lb/test/edge"
)

// Network is how a container is reached.
type Network string

const (
	// Published: on Docker's bridge, at a port of the host.
	Published Network = "published"
	// Shared is the host's own, at the port that Marathon gives the task.
	Shared Network = "shared"
)

// Container is one that was run.
type Container struct {
	// Name is also what it answers, with a newline behind it.
	Name string
	// Address at which it is reached, host:port.
	Address string

	host *Host
}

// Answer is what it answers to a request for "/".
func (c *Container) Answer() string { return c.Name + "\n" }

// Run has Docker run a container as an instance of the service. After its stop
// signal it serves for so long before it ends, unless [Container.End] comes first.
func (h *Host) Run(network Network, image, service, name string, grace time.Duration) *Container {
	h.t.Helper()
	// A port that Docker chose could be one that an outgoing connection has.
	port := edge.FreePort(h.t)
	c := &Container{Name: name, Address: fmt.Sprintf("127.0.0.1:%d", port), host: h}
	arguments := []string{"run", "-d", "--name", name, "-e", "SERVICE_NAME=" + service}
	command := []string{image, "/testserver", "-text", name, "-grace", grace.String()}
	switch network {
	case Published:
		arguments = append(arguments, "-p", c.Address+":80")
	case Shared:
		arguments = append(arguments, "--net=host", "-e", "MARATHON_APP_ID=/"+service, "-e", fmt.Sprintf("PORTS=%d", port))
		command = append(command, "-listen", c.Address)
	default:
		h.t.Fatalf("network %q: it is published or shared", network)
	}
	h.Docker(append(arguments, command...)...)
	return c
}

// Started is when Docker started it.
func (c *Container) Started() time.Time {
	c.host.t.Helper()
	at, err := time.Parse(time.RFC3339Nano, c.host.Docker("inspect", "--format", "{{.State.StartedAt}}", c.Name))
	if err != nil {
		c.host.t.Fatal(err)
	}
	return at
}

// Running says whether Docker has it running.
func (c *Container) Running() bool {
	c.host.t.Helper()
	return c.host.Docker("inspect", "--format", "{{.State.Running}}", c.Name) == "true"
}

// Stop begins a "docker stop" that leaves it a minute for its end. Wait returns
// when it has ended.
func (c *Container) Stop() (wait func()) {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		_, err := c.host.Engine.Docker(ctx, "stop", "-t", "60", c.Name)
		done <- err
	}()
	return func() {
		c.host.t.Helper()
		if err := <-done; err != nil {
			c.host.t.Fatal(err)
		}
	}
}

// End has it use no more of its grace.
func (c *Container) End() {
	c.host.t.Helper()
	if _, err := Get(c.Address, "/end"); err != nil {
		c.host.t.Fatalf("end container %s: %v", c.Name, err)
	}
}

// Kill ends it without notice.
func (c *Container) Kill() {
	c.host.t.Helper()
	c.host.Docker("kill", "-s", "KILL", c.Name)
}

// Holding is how many requests for /hold wait in it, by method.
func (c *Container) Holding() (map[string]int, error) {
	text, err := Get(c.Address, "/holding")
	if err != nil {
		return nil, fmt.Errorf("ask container %s what it holds: %w", c.Name, err)
	}
	var holding map[string]int
	if err := json.Unmarshal([]byte(text), &holding); err != nil {
		return nil, fmt.Errorf("ask container %s what it holds: %w", c.Name, err)
	}
	return holding, nil
}

// Release has it answer what it holds.
func (c *Container) Release() {
	c.host.t.Helper()
	if _, err := Get(c.Address, "/release"); err != nil {
		c.host.t.Fatalf("release container %s: %v", c.Name, err)
	}
}

// Farewell is what a container says that was stopped and has ended.
type Farewell struct {
	// First is when the first request of all began.
	First time.Time
	// Told is when its stop signal came.
	Told time.Time
	// Since counts the requests that began after it, the last of them at Last.
	Since int
	Last  time.Time
}

// Farewell is what the container said at its end.
func (c *Container) Farewell() Farewell {
	c.host.t.Helper()
	var f Farewell
	text := c.host.Docker("logs", c.Name)
	if err := json.Unmarshal([]byte(text), &f); err != nil || f.Told.IsZero() {
		c.host.t.Fatalf("container %s said %q at its end: %v", c.Name, text, err)
	}
	return f
}
