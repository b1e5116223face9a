// Package fleet keeps the connections to all machines of a platform.
//
// In come nodes, and a dialer that knows how to reach them. Out come machines that
// run commands, take files and open connections; a connection that has ended is
// made again when the machine is used again. The package decides nothing about what
// is done on them.
package fleet

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"

	gossh "golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Machine is a machine that is reached, and that files can be sent to.
type Machine interface {
	component.Host
	// Upload writes a file in one step; see [ssh.Host.Upload].
	Upload(ctx context.Context, f ssh.File, content io.ReadSeeker) (sum string, err error)
	// Download copies a file of the machine; see [ssh.Host.Download].
	Download(ctx context.Context, file string, root bool, to io.Writer) error
}

// Fleet is all machines. It is safe for concurrent use.
type Fleet struct {
	dialer *ssh.Dialer
	nodes  map[string]*machine
}

// New is a fleet of nodes, none of which is reached yet.
func New(dialer *ssh.Dialer, nodes []*cluster.Node) *Fleet {
	f := &Fleet{dialer: dialer, nodes: map[string]*machine{}}
	for _, n := range nodes {
		f.nodes[n.Name] = &machine{dialer: dialer, target: ssh.Target{Name: n.Name, Connection: n.Connection}}
	}
	return f
}

// Connect reaches all machines, so many at once, and returns those that cannot be
// reached with the reason.
func (f *Fleet) Connect(ctx context.Context, forks int) map[string]error {
	failed := map[string]error{}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(max(forks, 1))
	for name, m := range f.nodes {
		g.Go(func() error {
			if _, err := m.reach(ctx); err != nil {
				mu.Lock()
				failed[name] = err
				mu.Unlock()
			}
			return nil
		})
	}
	_ = g.Wait() // none of them fails
	return failed
}

// ErrNotReached is a machine that nobody has connected to.
var ErrNotReached = errors.New("the machine is not reached")

// Machine is the machine of a node. The error says why it is not reached.
func (f *Fleet) Machine(node string) (Machine, error) {
	m, ok := f.nodes[node]
	if !ok {
		return nil, fmt.Errorf("%s: %w: there is no such node", node, ErrNotReached)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host == nil && m.err != nil {
		return nil, fmt.Errorf("%s: %w: %w", node, ErrNotReached, m.err)
	}
	return m, nil
}

// Host implements [component.Access].
func (f *Fleet) Host(node string) (component.Host, error) {
	m, err := f.Machine(node)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// machine is one machine and the connection to it, if there is one.
type machine struct {
	dialer *ssh.Dialer
	target ssh.Target

	mu   sync.Mutex // held while connecting, too
	host *ssh.Host
	err  error // why the last attempt failed
}

// Name implements [component.Host].
func (m *machine) Name() string { return m.target.Name }

func (m *machine) reach(ctx context.Context) (*ssh.Host, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host != nil {
		return m.host, nil
	}
	host, err := m.dialer.Connect(ctx, m.target)
	m.host, m.err = host, err
	return host, err
}

// drop forgets a connection that has ended, so that the next use makes another.
func (m *machine) drop(host *ssh.Host, err error) {
	if !isDead(err) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.host == host {
		m.host = nil
		_ = host.Close() // it has ended
	}
}

// isDead says whether an error means that the connection has ended.
func isDead(err error) bool {
	var missing *gossh.ExitMissingError
	var network *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ETIMEDOUT) || errors.As(err, &missing) || errors.As(err, &network)
}

// Run implements [component.Host].
func (m *machine) Run(ctx context.Context, c ssh.Command) (ssh.Result, error) {
	host, err := m.reach(ctx)
	if err != nil {
		return ssh.Result{}, err
	}
	r, err := host.Run(ctx, c)
	m.drop(host, err)
	return r, err
}

// DialContext implements [component.Host].
func (m *machine) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, err := m.reach(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := host.DialContext(ctx, network, address)
	if err != nil && !m.target.Local {
		m.drop(host, err)
	}
	return conn, err
}

// HTTPClient implements [component.Host].
func (m *machine) HTTPClient(network, address string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
		if network != "" {
			n, a = network, address
		}
		return m.DialContext(ctx, n, a)
	}}}
}

// Upload implements [Machine].
func (m *machine) Upload(ctx context.Context, f ssh.File, content io.ReadSeeker) (string, error) {
	host, err := m.reach(ctx)
	if err != nil {
		return "", err
	}
	sum, err := host.Upload(ctx, f, content)
	m.drop(host, err)
	return sum, err
}

// Download implements [Machine].
func (m *machine) Download(ctx context.Context, file string, root bool, to io.Writer) error {
	host, err := m.reach(ctx)
	if err != nil {
		return err
	}
	err = host.Download(ctx, file, root, to)
	m.drop(host, err)
	return err
}
