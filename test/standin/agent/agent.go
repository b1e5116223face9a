package agent

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/flags"
	"github.com/mi-lb/mi-lb/test/standin/wire"
)

type agent struct {
	settings settings
	log      *slog.Logger
	tasks    *tasks
	started  time.Time

	mu         sync.Mutex
	id         string
	registered bool
	leader     *wire.MasterInfo
	moved      chan struct{} // closed when the leader is another
	updates    chan wire.TaskStatus
}

// Run is the program: it returns when it must end. Containers run on.
func Run(ctx context.Context, v flags.Values, environment []string, log *slog.Logger) error {
	s, err := read(v, environment)
	if err != nil {
		return err
	}
	for _, dir := range []string{s.workDir, s.runtimeDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("Failed to create agent work directory: %w", err)
		}
	}
	a := &agent{settings: s, log: log, started: time.Now(), moved: make(chan struct{}), updates: make(chan wire.TaskStatus, 4096)}
	a.tasks = &tasks{settings: s, log: log, running: map[string]*container{}, report: func(u wire.TaskStatus) { a.updates <- u }}
	if a.id, err = s.recover(); err != nil {
		return err
	}
	if err := a.tasks.recover(ctx, a.id); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(s.ip, strconv.Itoa(s.port)))
	if err != nil {
		return fmt.Errorf("Failed to initialize: Failed to bind on %s:%d: %w", s.ip, s.port, err)
	}
	server := &http.Server{Handler: a.handler(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // until Close
	defer server.Close()
	log.Info("agent started", "address", listener.Addr().String(), "recovered", a.id)

	failed := make(chan error, 2)
	go func() { failed <- a.detect(ctx) }()
	go func() { failed <- a.register(ctx) }()
	go a.send(ctx)
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// detect follows who leads the masters, over as many sessions as it takes.
func (a *agent) detect(ctx context.Context) error {
	for ctx.Err() == nil {
		dial, cancel := context.WithTimeout(ctx, time.Minute)
		session, err := ensemble.Dial(dial, a.settings.zk, a.settings.sessionTimeout, a.log)
		cancel()
		if err != nil {
			a.log.Warn("detect the leading master", "error", err)
			continue
		}
		if err := a.follow(ctx, session); err != nil {
			a.log.Warn("detect the leading master", "error", err)
		}
		session.Close()
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	return nil
}

func (a *agent) follow(ctx context.Context, session *ensemble.Session) error {
	for {
		members, changed, err := session.Members(a.settings.zk.Path, "json.info_")
		if err != nil {
			return err
		}
		var leader *wire.MasterInfo
		if len(members) > 0 {
			leader = new(wire.MasterInfo)
			if err := json.Unmarshal(members[0].Data, leader); err != nil {
				return fmt.Errorf("read %s: %w", members[0].Path, err)
			}
		}
		a.mu.Lock()
		if (leader == nil) != (a.leader == nil) || leader != nil && leader.PID+leader.ID != a.leader.PID+a.leader.ID {
			a.leader = leader
			close(a.moved)
			a.moved = make(chan struct{})
		}
		a.mu.Unlock()
		select {
		case <-changed:
		case <-session.Lost():
			return errors.New("the session with ZooKeeper is over")
		case <-ctx.Done():
			return nil
		}
	}
}

// register keeps the agent registered with whoever leads.
func (a *agent) register(ctx context.Context) error {
	login := wire.Login{Principal: a.settings.credential.Principal, Secret: a.settings.credential.Secret}
	for ctx.Err() == nil {
		a.mu.Lock()
		leader, moved, id := a.leader, a.moved, a.id
		a.mu.Unlock()
		if leader != nil {
			stream, cancel := context.WithCancel(ctx)
			go func() {
				select {
				case <-moved:
					cancel()
				case <-stream.Done():
				}
			}()
			var shutdown string
			err := wire.Stream(stream, leader.URL()+"/standin/agent", login, a.info(id), func(line wire.ToAgent) {
				if err := a.take(line); err != nil {
					a.log.Error("register", "error", err)
					cancel()
				}
				if line.Shutdown != "" {
					shutdown = line.Shutdown
					cancel()
				}
			})
			cancel()
			a.mu.Lock()
			a.registered = false
			a.mu.Unlock()
			if shutdown != "" {
				if err := os.Remove(a.settings.latest()); err != nil {
					a.log.Warn("forget who this agent was", "error", err)
				}
				return fmt.Errorf("Master %s requested shutdown: %s", leader.PID, shutdown)
			}
			var refused *wire.RefusedError
			if errors.As(err, &refused) && refused.Status == http.StatusUnauthorized {
				return fmt.Errorf("Master %s refused authentication", leader.PID)
			}
			if ctx.Err() == nil {
				a.log.Warn("not registered", "master", leader.PID, "error", err)
			}
		}
		select {
		case <-moved:
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (a *agent) info(id string) wire.Agent {
	return wire.Agent{
		ID: id, Hostname: a.settings.hostname, IP: a.settings.ip, Port: a.settings.port,
		Attributes: a.settings.attributes, Resources: a.settings.resources, Tasks: a.tasks.list(),
	}
}

// take does what a line says.
func (a *agent) take(line wire.ToAgent) error {
	switch {
	case line.Registered != "":
		if err := a.settings.save(line.Registered); err != nil {
			return err
		}
		a.mu.Lock()
		a.id, a.registered = line.Registered, true
		a.mu.Unlock()
		a.log.Info("registered", "id", line.Registered)
	case line.Launch != nil:
		go a.tasks.launch(*line.Launch)
	case line.Kill != nil:
		go a.tasks.kill(*line.Kill)
	}
	return nil
}

// send tells the master what became of tasks, in order and until it has heard.
func (a *agent) send(ctx context.Context) {
	login := wire.Login{Principal: a.settings.credential.Principal, Secret: a.settings.credential.Secret}
	for {
		var update wire.TaskStatus
		select {
		case update = <-a.updates:
		case <-ctx.Done():
			return
		}
		for ctx.Err() == nil {
			a.mu.Lock()
			leader, registered := a.leader, a.registered
			a.mu.Unlock()
			if leader != nil && registered {
				err := wire.Post(ctx, leader.URL()+"/standin/update", login, update)
				var refused *wire.RefusedError
				if err == nil || errors.As(err, &refused) && refused.Status == http.StatusNotFound {
					break
				}
			}
			select {
			case <-time.After(200 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	health := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	mux.HandleFunc("/health", health)
	mux.HandleFunc("/slave(1)/health", health)
	mux.HandleFunc("/metrics/snapshot", a.readonly(func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		registered := 0.0
		if a.registered {
			registered = 1
		}
		a.mu.Unlock()
		running := len(a.tasks.list())
		answer(w, map[string]float64{
			"slave/registered": registered, "slave/tasks_running": float64(running), "slave/uptime_secs": time.Since(a.started).Seconds(),
			"slave/recovery_errors": 0,
		})
	}))
	state := a.readonly(func(w http.ResponseWriter, _ *http.Request) {
		a.mu.Lock()
		id, leader := a.id, ""
		if a.leader != nil {
			leader = a.leader.Hostname
		}
		a.mu.Unlock()
		answer(w, map[string]any{
			"version": Version, "id": id, "hostname": a.settings.hostname, "master_hostname": leader,
			"pid": fmt.Sprintf("slave(1)@%s:%d", a.settings.ip, a.settings.port), "attributes": a.settings.attributes, "tasks": a.tasks.list(),
		})
	})
	mux.HandleFunc("/state", state)
	mux.HandleFunc("/slave(1)/state", state)
	return mux
}

func (a *agent) readonly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if a.settings.readonly != nil {
			principal, secret, ok := r.BasicAuth()
			want, known := a.settings.readonly[principal]
			if !ok || !known || subtle.ConstantTimeCompare([]byte(want), []byte(secret)) != 1 {
				w.Header().Set("WWW-Authenticate", `Basic realm="mesos-agent-readonly"`)
				http.Error(w, "", http.StatusUnauthorized)
				return
			}
		}
		next(w, r)
	}
}

func answer(w http.ResponseWriter, value any) {
	data, err := json.Marshal(value)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data) // the client's loss
}
