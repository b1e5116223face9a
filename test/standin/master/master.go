package master

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/flags"
	"github.com/mi-lb/mi-lb/test/standin/wire"
)

const (
	memberPrefix = "json.info_"
	replicas     = "/log_replicas"
)

type master struct {
	settings settings
	info     wire.MasterInfo
	log      *slog.Logger
	started  time.Time
	replica  *replica

	mu        sync.Mutex
	leader    *wire.MasterInfo // nil while nobody leads
	elected   bool
	electedAt time.Time
	nextAgent int
	agents    map[string]*agent
	framework *framework
}

type agent struct {
	info     wire.Agent
	active   bool // connected, and not deactivated
	drain    string
	tasks    map[string]wire.TaskStatus
	lines    chan wire.ToAgent // nil while it is away
	away     *time.Timer
	seen     time.Time
	position int
}

type framework struct {
	id    string
	name  string
	lines chan wire.ToFramework
}

// Run is the program: it returns when it must end.
func Run(ctx context.Context, v flags.Values, log *slog.Logger) error {
	s, err := read(v)
	if err != nil {
		return err
	}
	m := &master{settings: s, log: log, started: time.Now(), agents: map[string]*agent{}}
	m.info = wire.MasterInfo{
		Address: wire.MasterAddress{Hostname: s.hostname, IP: s.ip, Port: s.port}, Hostname: s.hostname, ID: uuid(),
		PID: fmt.Sprintf("master@%s:%d", s.ip, s.port), Port: s.port, Version: Version,
	}
	if m.replica, err = openReplica(s); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(s.ip, fmt.Sprint(s.port)))
	if err != nil {
		return fmt.Errorf("Failed to initialize: Failed to bind on %s:%d: %w", s.ip, s.port, err)
	}
	server := &http.Server{Handler: m.handler(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener) //nolint:errcheck // until Close
	defer server.Close()
	log.Info("master started", "pid", m.info.PID, "quorum", s.quorum)

	dial, cancel := context.WithTimeout(ctx, 2*time.Minute)
	session, err := ensemble.Dial(dial, s.zk, s.sessionTimeout, log)
	cancel()
	if err != nil {
		return fmt.Errorf("Failed to create a master contender: %w", err)
	}
	defer session.Close()
	acl := s.zk.ReadableACL()
	me, err := session.Join(s.zk.Path, memberPrefix, encode(m.info), acl)
	if err != nil {
		return fmt.Errorf("Failed to contend: %w", err)
	}
	failed := make(chan error, 3)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go func() { failed <- m.detect(ctx, session, me) }()
	go func() { failed <- m.replica.recover(ctx, session, m.info, log) }()
	go func() { failed <- m.keepRegistry(ctx) }()
	select {
	case <-ctx.Done():
		return nil
	case <-session.Lost():
		if m.isLeader() {
			return errors.New("Lost leadership... committing suicide!")
		}
		return errors.New("Lost the session with ZooKeeper; a stand-in starts anew then")
	case err := <-failed:
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
}

// detect follows who leads: the oldest member.
func (m *master) detect(ctx context.Context, session *ensemble.Session, me string) error {
	for {
		members, changed, err := session.Members(m.settings.zk.Path, memberPrefix)
		if err != nil {
			return fmt.Errorf("Failed to detect the leading master: %w", err)
		}
		var leader *wire.MasterInfo
		isMe := false
		if len(members) > 0 {
			leader = new(wire.MasterInfo)
			if err := json.Unmarshal(members[0].Data, leader); err != nil {
				return fmt.Errorf("Failed to detect the leading master: %s is not understood: %w", members[0].Path, err)
			}
			isMe = members[0].Path == me
		}
		if !slices.ContainsFunc(members, func(x ensemble.Member) bool { return x.Path == me }) {
			return errors.New("Lost candidacy... committing suicide!")
		}
		m.mu.Lock()
		if isMe && !m.elected {
			m.log.Info("elected as the leading master", "pid", m.info.PID)
			m.electedAt = time.Now()
		}
		was := m.elected
		m.leader, m.elected = leader, isMe
		m.mu.Unlock()
		if was && !isMe {
			return errors.New("Lost leadership... committing suicide!")
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// keepRegistry ends a leader that cannot read its registry for too long.
func (m *master) keepRegistry(ctx context.Context) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var since time.Time
	offers := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if !m.isLeader() || m.replica.readable() {
			since = time.Time{}
			if offers++; offers%40 == 0 {
				m.mu.Lock()
				m.offer()
				m.mu.Unlock()
			}
			continue
		}
		if since.IsZero() {
			since = time.Now()
		}
		if time.Since(since) > m.settings.fetchTimeout {
			return fmt.Errorf("Recovery failed: Failed to recover registrar: Failed to perform fetch within %s", m.settings.fetchTimeout)
		}
	}
}

func (m *master) isLeader() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.elected
}

// login is the principal of a request that knows its secret.
func (m *master) login(r *http.Request) (string, bool) {
	principal, secret, ok := r.BasicAuth()
	if !ok {
		return "", false
	}
	want, known := m.settings.credentials[principal]
	return principal, known && subtle.ConstantTimeCompare([]byte(want), []byte(secret)) == 1
}

func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil { // plain structs always encode
		panic(err)
	}
	return data
}

func uuid() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
