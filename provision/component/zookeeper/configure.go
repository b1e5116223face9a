package zookeeper

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// MesosPath and MarathonPath are what belongs to the users mesos and marathon.
const (
	MesosPath    = "/mesos"
	MarathonPath = "/marathon"
)

// wish is a znode with who may do what.
type wish struct {
	id, title, path string
	acl             []zk.ACL
}

// wishes are in the order in which they must come true: the root is closed when what
// is below is there.
func wishes(p component.Platform, d *cluster.Datacenter) []wish {
	owner := func(user string, permissions int32) zk.ACL {
		return zk.ACL{Perms: permissions, Scheme: "digest", ID: p.Secrets.ZooKeeper(d.Name, user).Digest()}
	}
	world := zk.ACL{Perms: zk.PermRead, Scheme: "world", ID: "anyone"}
	return []wish{
		{"znode/mesos", "make /mesos, which only the user mesos can write", MesosPath, []zk.ACL{owner(secrets.ZooKeeperMesos, zk.PermAll), world}},
		{"znode/marathon", "make /marathon, which only the user marathon can read and write", MarathonPath, []zk.ACL{owner(secrets.ZooKeeperMarathon, zk.PermAll)}},
		{"acl/root", "let nobody make anything beside them", "/", []zk.ACL{world}},
	}
}

// Expected implements [component.Configurer].
func (zookeeper) Expected(p component.Platform, d *cluster.Datacenter) []component.Action {
	nodes := d.With(cluster.ZooKeeper)
	if len(nodes) == 0 {
		return nil
	}
	var all []component.Action
	for _, w := range wishes(p, d) {
		all = append(all, component.Action{ID: w.id, Title: w.title, Datacenter: d.Name, Node: nodes[0].Name})
	}
	return all
}

// Pending implements [component.Configurer].
func (zookeeper) Pending(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) ([]component.Action, error) {
	if len(d.With(cluster.ZooKeeper)) == 0 {
		return nil, nil
	}
	session, node, err := connect(ctx, p, d, a)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	var all []component.Action
	for _, w := range wishes(p, d) {
		isSo, err := holds(session, w)
		if err != nil {
			return nil, fmt.Errorf("look at %s of datacenter %s: %w", w.path, d.Name, err)
		}
		if isSo {
			continue
		}
		all = append(all, component.Action{ID: w.id, Title: w.title, Datacenter: d.Name, Node: node, Do: func(ctx context.Context) error {
			session, _, err := connect(ctx, p, d, a)
			if err != nil {
				return err
			}
			defer session.Close()
			if err := fulfil(session, w); err != nil {
				return fmt.Errorf("bring %s of datacenter %s about: %w", w.path, d.Name, err)
			}
			return nil
		}})
	}
	return all, nil
}

func holds(session *zk.Conn, w wish) (bool, error) {
	acl, _, err := session.GetACL(w.path)
	if errors.Is(err, zk.ErrNoNode) {
		return false, nil
	}
	return sameACL(acl, w.acl), err
}

func fulfil(session *zk.Conn, w wish) error {
	if w.path != "/" {
		if _, err := session.Create(w.path, nil, 0, w.acl); err == nil || !errors.Is(err, zk.ErrNodeExists) {
			return err
		}
	}
	_, err := session.SetACL(w.path, w.acl, -1)
	return err
}

func sameACL(a, b []zk.ACL) bool {
	sorted := func(l []zk.ACL) []zk.ACL {
		l = slices.Clone(l)
		slices.SortFunc(l, func(x, y zk.ACL) int {
			switch {
			case x.Scheme+x.ID < y.Scheme+y.ID:
				return -1
			case x.Scheme+x.ID > y.Scheme+y.ID:
				return 1
			}
			return int(x.Perms - y.Perms)
		})
		return l
	}
	return slices.Equal(sorted(a), sorted(b))
}

// connect is a session of the super user with the first server of a datacenter that
// gives one, and the node it is on.
func connect(ctx context.Context, p component.Platform, d *cluster.Datacenter, a component.Access) (*zk.Conn, string, error) {
	var reasons []error
	reached := false
	for _, n := range d.With(cluster.ZooKeeper) {
		host, err := a.Host(n.Name)
		if err != nil {
			reasons = append(reasons, err)
			continue
		}
		reached = true
		s, _ := read(p, n)
		// A server without a quorum takes connections and gives no sessions.
		if _, err := statusOf(ctx, host, s.dial()); err != nil {
			reasons = append(reasons, fmt.Errorf("%s: %w", n.Name, err))
			continue
		}
		session, err := open(ctx, host, s.dial(), p.Secrets.ZooKeeper(d.Name, secrets.ZooKeeperSuper))
		if err == nil {
			return session, n.Name, nil
		}
		reasons = append(reasons, fmt.Errorf("%s: %w", n.Name, err))
	}
	if reached {
		reasons = append([]error{component.ErrNotRunning}, reasons...)
	}
	return nil, "", fmt.Errorf("reach ZooKeeper in datacenter %s: %w", d.Name, errors.Join(reasons...))
}

// sessionPatience is how long a server may take to give a session.
const sessionPatience = 10 * time.Second

func open(ctx context.Context, host component.Host, address string, login secrets.Login) (*zk.Conn, error) {
	dial := func(network, address string, timeout time.Duration) (net.Conn, error) {
		patience, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		c, err := host.DialContext(patience, network, address)
		if err != nil {
			return nil, err
		}
		return bounded{c, context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
	}
	session, events, err := zk.Connect([]string{address}, sessionPatience, zk.WithDialer(dial), zk.WithLogInfo(false), zk.WithLogger(silence{}))
	if err != nil {
		return nil, err
	}
	patience, cancel := context.WithTimeout(ctx, sessionPatience)
	defer cancel()
	for {
		select {
		case e := <-events:
			if e.State != zk.StateHasSession {
				continue
			}
			if err := session.AddAuth("digest", []byte(login.Pair().Reveal())); err != nil {
				session.Close()
				return nil, fmt.Errorf("log in as %s: %w", login.User, err)
			}
			return session, nil
		case <-patience.Done():
			session.Close()
			return nil, fmt.Errorf("%s gives no session: %w", address, patience.Err())
		}
	}
}

// bounded is a connection that ends with a context. One through SSH has no
// deadlines, and the client gives up where it cannot set one.
type bounded struct {
	net.Conn
	release func() bool
}

// Close implements [net.Conn].
func (b bounded) Close() error {
	b.release()
	return b.Conn.Close()
}

// SetDeadline implements [net.Conn].
func (bounded) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements [net.Conn].
func (bounded) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements [net.Conn].
func (bounded) SetWriteDeadline(time.Time) error { return nil }

// silence is a log that nobody reads.
type silence struct{}

// Printf implements [zk.Logger].
func (silence) Printf(string, ...any) {}
