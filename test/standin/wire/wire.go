// Package wire is what the stand-ins say to each other: lines of JSON over HTTP.
package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// MasterInfo is what a master says of itself in ZooKeeper, as Mesos writes it.
type MasterInfo struct {
	Address  MasterAddress `json:"address"`
	Hostname string        `json:"hostname"`
	ID       string        `json:"id"`
	PID      string        `json:"pid"`
	Port     int           `json:"port"`
	Version  string        `json:"version"`
}

// MasterAddress is where a master listens.
type MasterAddress struct {
	Hostname string `json:"hostname"`
	IP       string `json:"ip"`
	Port     int    `json:"port"`
}

// URL is where the master is asked.
func (m MasterInfo) URL() string { return fmt.Sprintf("http://%s:%d", m.Address.IP, m.Address.Port) }

// Agent is an agent as it registers.
type Agent struct {
	ID         string       `json:"id,omitempty"`
	Hostname   string       `json:"hostname"`
	Port       int          `json:"port"`
	IP         string       `json:"ip"`
	Attributes string       `json:"attributes"`
	Resources  string       `json:"resources"`
	Active     bool         `json:"active"`
	Tasks      []TaskStatus `json:"tasks"`
}

// TaskStatus is what became of a task.
type TaskStatus struct {
	TaskID    string `json:"task_id"`
	AgentID   string `json:"agent_id"`
	State     string `json:"state"`
	Message   string `json:"message,omitempty"`
	Container string `json:"container,omitempty"`
	IP        string `json:"ip,omitempty"`
}

// Task is a task to launch.
type Task struct {
	ID             string            `json:"id"`
	AgentID        string            `json:"agent_id"`
	Name           string            `json:"name"`
	Image          string            `json:"image"`
	ForcePull      bool              `json:"force_pull,omitempty"`
	Privileged     bool              `json:"privileged,omitempty"`
	Shell          string            `json:"shell,omitempty"` // a line for /bin/sh
	Arguments      []string          `json:"arguments,omitempty"`
	Env            map[string]string `json:"env"`
	HostNetwork    bool              `json:"host_network"`
	Ports          []Port            `json:"ports,omitempty"`
	Parameters     []Parameter       `json:"parameters,omitempty"`
	CPUs           float64           `json:"cpus"`
	MemoryMegabyte float64           `json:"mem"`
}

// Port is a port that is published.
type Port struct {
	Host      int    `json:"host"`
	Container int    `json:"container"`
	Protocol  string `json:"protocol"`
}

// Parameter is an option of docker run.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Kill ends a task.
type Kill struct {
	TaskID  string  `json:"task_id"`
	AgentID string  `json:"agent_id"`
	Grace   float64 `json:"grace"` // seconds
}

// ToAgent is a line from the master to an agent: one field is set.
type ToAgent struct {
	Registered string `json:"registered,omitempty"` // the agent's id
	Launch     *Task  `json:"launch,omitempty"`
	Kill       *Kill  `json:"kill,omitempty"`
	Shutdown   string `json:"shutdown,omitempty"` // why the agent must end
	Ping       bool   `json:"ping,omitempty"`
}

// ToFramework is a line from the master to a framework: one field is set.
type ToFramework struct {
	Subscribed string      `json:"subscribed,omitempty"` // the framework's id
	Agents     []Agent     `json:"agents"`
	Update     *TaskStatus `json:"update,omitempty"`
	Ping       bool        `json:"ping,omitempty"`
}

// Subscribe is a framework that wants to be served.
type Subscribe struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// Call is what a framework wants: one field is set.
type Call struct {
	Launch *Task `json:"launch,omitempty"`
	Kill   *Kill `json:"kill,omitempty"`
}

// Login is for basic authentication.
type Login struct{ Principal, Secret string }

// PingEvery is how often a stream has a line; one without for thrice as long is dead.
const PingEvery = 2 * time.Second

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Post sends a request whose answer is short.
func Post(ctx context.Context, url string, login Login, body any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	response, err := send(ctx, url, login, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	return nil
}

func send(ctx context.Context, url string, login Login, body any) (*http.Response, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	request.SetBasicAuth(login.Principal, login.Secret)
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 500))
		response.Body.Close()
		return nil, &RefusedError{response.StatusCode, strings.TrimSpace(string(text))}
	}
	return response, nil
}

// RefusedError is an answer that says no.
type RefusedError struct {
	Status int
	Reason string
}

// Error is the status and the reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("%d: %s", e.Status, e.Reason) }

// Stream sends a request and gives each line of the answer to each, until the
// stream ends, falls silent, or the context ends.
func Stream[T any](ctx context.Context, url string, login Login, body any, each func(T)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	silent := time.AfterFunc(3*PingEvery, cancel)
	defer silent.Stop()
	response, err := send(ctx, url, login, body)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		silent.Reset(3 * PingEvery)
		var line T
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return fmt.Errorf("read a line of %s: %w", url, err)
		}
		each(line)
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

// Serve writes lines to an answer until its request ends or the channel is closed.
func Serve[T any](w http.ResponseWriter, r *http.Request, lines <-chan T, ping T) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	controller := http.NewResponseController(w)
	encoder := json.NewEncoder(w)
	tick := time.NewTicker(PingEvery)
	defer tick.Stop()
	for {
		line := ping
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		case next, open := <-lines:
			if !open {
				return
			}
			line = next
		}
		_ = controller.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if encoder.Encode(line) != nil || controller.Flush() != nil {
			return
		}
	}
}
