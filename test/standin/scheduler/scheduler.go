// Package scheduler is what Marathon does here: members elect a leader in ZooKeeper,
// which has the API of the emulator in test/marathon and runs its apps on the agents
// of the leading master; the others pass requests on to it.
package scheduler

//lint:file-ignore ST1005 these are the words of Marathon.

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"

	emulator "github.com/mi-lb/mi-lb/test/marathon"
	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/flags"
	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// Version is what it says that it is.
const Version = "1.11.24"

type settings struct {
	zk, master         ensemble.URL
	hostname, listen   string
	port               int
	username, password string
	login              wire.Login
	portMin, portMax   int
	name, role         string
	sessionTimeout     time.Duration
	killRetry          time.Duration
	taskKilling        bool
}

func read(v flags.Values) (settings, error) {
	s := settings{
		hostname: v.Text("hostname", ""), listen: v.Text("http_address", "0.0.0.0"), port: v.Number("http_port", 8080),
		portMin: v.Number("local_port_min", 10000), portMax: v.Number("local_port_max", 20000),
		name: v.Text("framework_name", "marathon"), role: v.Text("mesos_role", "*"),
		sessionTimeout: time.Duration(v.Number("zk_session_timeout", 10000)) * time.Millisecond,
		killRetry:      time.Duration(v.Number("kill_retry_timeout", 10000)) * time.Millisecond,
		taskKilling:    strings.Contains(v.Text("enable_features", "task_killing"), "task_killing"),
	}
	if s.hostname == "" {
		return s, errors.New("the stand-in needs --hostname, as a machine whose name does not resolve does")
	}
	var err error
	if s.zk, err = ensemble.ParseMarathon(v.Text("zk", "zk://localhost:2181/marathon")); err != nil {
		return s, fmt.Errorf("Bad arguments for option 'zk': %w", err)
	}
	if s.master, err = ensemble.ParseMarathon(v.Text("master", "")); err != nil {
		return s, fmt.Errorf("Bad arguments for option 'master': %w", err)
	}
	s.username, s.password, _ = strings.Cut(v["http_credentials"], ":")
	secret, err := flags.MarathonSecret(v)
	if err != nil {
		return s, err
	}
	if v.Bool("mesos_authentication", false) {
		s.login = wire.Login{Principal: v["mesos_authentication_principal"], Secret: secret}
	}
	return s, nil
}

func (s settings) address() string { return net.JoinHostPort(s.hostname, strconv.Itoa(s.port)) }

type member struct {
	settings settings
	log      *slog.Logger
	session  *ensemble.Session

	mu        sync.Mutex
	leader    string // host:port; empty while there is none
	cluster   *emulator.Cluster
	framework string
	ended     error
	end       context.CancelFunc
}

// Run is the program: it returns when it must end. Tasks run on.
func Run(ctx context.Context, v flags.Values, log *slog.Logger) error {
	s, err := read(v)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m := &member{settings: s, log: log, end: stop}
	dial, cancel := context.WithTimeout(ctx, 2*time.Minute)
	m.session, err = ensemble.Dial(dial, s.zk, s.sessionTimeout, log)
	cancel()
	if err != nil {
		return err
	}
	defer m.session.Close()
	acl := s.zk.PrivateACL()
	latch := path.Join(s.zk.Path, "leader-curator")
	if err := m.session.Ensure(latch, acl); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(s.listen, strconv.Itoa(s.port)))
	if err != nil {
		return fmt.Errorf("Failed to bind to %s:%d: %w", s.listen, s.port, err)
	}
	server := &http.Server{Handler: m, ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // until Close
	defer server.Close()
	me, err := m.session.Join(latch, "_c_"+uuid()+"-latch-", []byte(s.address()), acl)
	if err != nil {
		return err
	}
	log.Info("member started", "address", s.address())
	failed := make(chan error, 1)
	go func() { failed <- m.contend(ctx, latch, me) }()
	defer func() {
		m.mu.Lock()
		cluster := m.cluster
		m.mu.Unlock()
		if cluster != nil {
			cluster.Close()
		}
	}()
	select {
	case <-ctx.Done():
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.ended
	case <-m.session.Lost():
		return errors.New("Lost the session with ZooKeeper; leadership is given up")
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// abdicate ends the program, as Marathon does when it gives up its lead.
func (m *member) abdicate(reason error) {
	m.mu.Lock()
	m.ended = reason
	m.mu.Unlock()
	m.end()
}

// contend follows who leads, and leads when it is this member's turn.
func (m *member) contend(ctx context.Context, latch, me string) error {
	for {
		members, changed, err := m.session.Members(latch, "-latch-")
		if err != nil {
			return err
		}
		leader := ""
		if len(members) > 0 {
			leader = string(members[0].Data)
			if members[0].Path == me {
				return m.lead(ctx)
			}
		}
		m.mu.Lock()
		m.leader = leader
		m.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// stored is what the leader keeps in ZooKeeper for the next one.
type stored struct {
	Framework string         `json:"framework"`
	State     emulator.State `json:"state"`
}

func (m *member) stateNode() string { return path.Join(m.settings.zk.Path, "state", "standin") }

// lead runs the emulator with what was stored, until the context ends.
func (m *member) lead(ctx context.Context) error {
	m.log.Info("elected", "address", m.settings.address())
	acl := m.settings.zk.PrivateACL()
	if err := m.session.Ensure(m.stateNode(), acl); err != nil {
		return err
	}
	var before stored
	data, err := m.session.Get(m.stateNode())
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	if len(data) > 0 {
		if err := json.Unmarshal(data, &before); err != nil {
			return fmt.Errorf("read the state: %w", err)
		}
	}
	l := &leadership{member: m, log: m.log, settings: m.settings, term: ctx}
	l.kills = &kills{again: m.settings.killRetry, soon: time.Second, log: m.log, send: func(k wire.Kill) error { return l.call(wire.Call{Kill: &k}) }}
	cluster, err := emulator.Start(emulator.Options{
		Version: Version, Listen: []string{"127.0.0.1:0"}, Runner: l, Restore: &before.State,
		LocalPortMin: m.settings.portMin, LocalPortMax: m.settings.portMax, DisableTaskKilling: !m.settings.taskKilling, Logger: m.log,
	})
	if err != nil {
		return err
	}
	l.cluster = cluster
	if err := cluster.SetAgents(nil); err != nil {
		return err
	}
	m.mu.Lock()
	m.cluster, m.leader, m.framework = cluster, m.settings.address(), before.Framework
	m.mu.Unlock()
	failed := make(chan error, 2)
	go func() { failed <- l.schedule(ctx) }()
	go func() { failed <- m.keep(ctx, cluster) }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return nil
	}
}

// keep stores what there is whenever it changes.
func (m *member) keep(ctx context.Context, cluster *emulator.Cluster) error {
	last := ""
	for {
		changed := cluster.Changed()
		m.mu.Lock()
		framework := m.framework
		m.mu.Unlock()
		data, err := json.Marshal(stored{framework, cluster.State()})
		if err != nil {
			return err
		}
		if string(data) != last {
			if err := m.session.Set(m.stateNode(), data); err != nil && !errors.Is(err, zk.ErrClosing) {
				return fmt.Errorf("store the state: %w", err)
			}
			last = string(data)
		}
		select {
		case <-changed:
		case <-time.After(time.Second): // the framework's id has no signal of its own
		case <-ctx.Done():
			return nil
		}
	}
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
