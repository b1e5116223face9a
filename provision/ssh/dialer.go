package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/semaphore"

	"github.com/mi-lb/mi-lb/provision/redact"
)

const (
	defaultDialTimeout = 20 * time.Second
	// mostSessions at once on one connection: sshd's MaxSessions is 10.
	mostSessions   = 8
	urgentSessions = 1
	// mostDials at once to one host, or through one jump host: sshd's MaxStartups
	// begins to drop at 10.
	mostDials = 6
	// dialTries is how often a connection is made that sshd drops before it says
	// anything, which is what MaxStartups does.
	dialTries = 5
	dialPause = 100 * time.Millisecond
	// deepestJump is more than anybody has, and ends circles.
	deepestJump = 16
	// keepalive is how often a connection is asked whether it lives, and how long
	// it may take to answer.
	keepalive = 15 * time.Second
)

// Dialer makes connections, and shares those to jump hosts. Close ends all of them.
type Dialer struct {
	options  Options
	keys     *keyring
	hostKeys *hostKeys
	log      *slog.Logger
	mask     *redact.Mask

	mu      sync.Mutex
	closed  bool
	clients map[*client]struct{}
	shared  map[string]*sharing
	limits  map[string]*semaphore.Weighted
	configs map[string]*sshConfig
}

// sharing is a connection to a jump host, maybe still being made.
type sharing struct {
	done   chan struct{}
	client *client
	err    error
}

// client is one SSH connection.
type client struct {
	*ssh.Client
	sessions *semaphore.Weighted
	urgent   *semaphore.Weighted
	gone     chan struct{} // closed when the connection has ended
}

// NewDialer is a dialer.
func NewDialer(options Options) *Dialer {
	if options.DialTimeout == 0 {
		options.DialTimeout = defaultDialTimeout
	}
	if options.HostKeys == "" {
		options.HostKeys = Strict
	}
	log := options.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	mask := options.Mask
	if mask == nil {
		mask = &redact.Mask{}
	}
	d := &Dialer{
		options: options, log: log, mask: mask, keys: &keyring{options: options},
		clients: map[*client]struct{}{}, shared: map[string]*sharing{}, limits: map[string]*semaphore.Weighted{}, configs: map[string]*sshConfig{},
	}
	d.hostKeys = &hostKeys{file: options.KnownHosts, policy: options.HostKeys, warn: func(host, fingerprint string) {
		log.Warn("host key not checked", "host", host, "fingerprint", fingerprint)
	}}
	return d
}

// Close ends all connections.
func (d *Dialer) Close() error {
	d.mu.Lock()
	d.closed = true
	clients := make([]*client, 0, len(d.clients))
	for c := range d.clients {
		clients = append(clients, c)
	}
	d.mu.Unlock()
	for _, c := range clients {
		_ = c.Close() // it may have ended by itself
	}
	d.keys.close()
	return nil
}

// Connect reaches a target. The connection lives until the host or the dialer is
// closed.
func (d *Dialer) Connect(ctx context.Context, t Target) (*Host, error) {
	d.mask.Add(t.Password, t.BecomePassword)
	h := &Host{target: t, log: d.log.With("host", t.Name), mask: d.mask}
	if t.Local {
		h.transport = local{}
		return h, nil
	}
	e, err := d.endpoint(t)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.Name, err)
	}
	c, err := d.reach(ctx, e, 0)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.Name, err)
	}
	h.transport = remote{c}
	return h, nil
}

// endpoint is a target with what ssh_config adds.
func (d *Dialer) endpoint(t Target) (endpoint, error) {
	config, err := d.config(t.ConfigFile)
	if err != nil {
		return endpoint{}, err
	}
	e := endpoint{name: t.Name, host: t.Host, port: t.Port, user: t.User, password: t.Password, hostKeys: t.HostKeys, jumps: t.Jumps}
	if t.KeyFile != "" {
		e.keys = []string{t.KeyFile}
	}
	return config.resolve(e)
}

func (d *Dialer) config(file string) (*sshConfig, error) {
	if file == "" {
		file = d.options.ConfigFile
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c, ok := d.configs[file]; ok {
		return c, nil
	}
	c, err := readConfig(file)
	if err != nil {
		return nil, err
	}
	d.configs[file] = c
	return c, nil
}

// reach connects to an endpoint by way of its jump hosts.
func (d *Dialer) reach(ctx context.Context, e endpoint, depth int) (*client, error) {
	if depth > deepestJump {
		return nil, fmt.Errorf("the jump hosts of %s lead in a circle", e)
	}
	for try := 1; ; try++ {
		via, err := d.via(ctx, e, depth)
		if err != nil {
			return nil, err
		}
		c, err := d.dial(ctx, e, via)
		if err == nil || via == nil || try == 2 || ctx.Err() != nil || !via.isDead() {
			return c, err
		}
		// The shared connection ended while it was used; make another.
	}
}

// isDead says whether a connection has ended, and if so waits until everybody knows.
func (c *client) isDead() bool {
	if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err == nil {
		return false
	}
	_ = c.Close() // it has ended
	<-c.gone
	return true
}

// via is the connection to the last jump host; nil where there is none.
func (d *Dialer) via(ctx context.Context, e endpoint, depth int) (*client, error) {
	if len(e.jumps) == 0 {
		return nil, nil
	}
	last := len(e.jumps) - 1
	jump, err := parseJump(e.jumps[last])
	if err != nil {
		return nil, err
	}
	jump.jumps = e.jumps[:last]
	if jump, err = e.config.resolve(jump); err != nil {
		return nil, err
	}
	// A jump host has no key of its own in the inventory: it is logged in to with
	// the target's.
	if len(jump.keys) == 0 {
		jump.keys = slices.Clone(e.keys)
	}
	c, err := d.share(ctx, jump, depth+1)
	if err != nil {
		return nil, fmt.Errorf("jump host %s: %w", jump, err)
	}
	return c, nil
}

// share is the connection to a jump host, made once for all who need it.
func (d *Dialer) share(ctx context.Context, e endpoint, depth int) (*client, error) {
	key := strings.Join(append(slices.Clone(e.jumps), e.key()), ",")
	for {
		d.mu.Lock()
		s := d.shared[key]
		if s == nil {
			s = &sharing{done: make(chan struct{})}
			d.shared[key] = s
			d.mu.Unlock()
			s.client, s.err = d.reach(ctx, e, depth)
			if s.err != nil {
				d.mu.Lock()
				delete(d.shared, key)
				d.mu.Unlock()
			}
			close(s.done)
			return s.client, s.err
		}
		d.mu.Unlock()
		select {
		case <-s.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if s.err != nil {
			// The one who made it may have been cancelled; try for ourselves.
			if errors.Is(s.err, context.Canceled) && ctx.Err() == nil {
				continue
			}
			return nil, s.err
		}
		select {
		case <-s.client.gone:
			d.mu.Lock()
			if d.shared[key] == s {
				delete(d.shared, key)
			}
			d.mu.Unlock()
		default:
			return s.client, nil
		}
	}
}

// limit bounds how many connections are made at once to a host or by way of one.
func (d *Dialer) limit(e endpoint, via *client) *semaphore.Weighted {
	key := e.address()
	if via != nil {
		key = fmt.Sprintf("%p", via)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.limits[key]
	if s == nil {
		s = semaphore.NewWeighted(mostDials)
		d.limits[key] = s
	}
	return s
}

// dial makes one connection and logs in.
func (d *Dialer) dial(ctx context.Context, e endpoint, via *client) (*client, error) {
	methods, tried, err := d.keys.methods(e)
	if err != nil {
		return nil, err
	}
	check, algorithms, err := d.hostKeys.check(e)
	if err != nil {
		return nil, err
	}
	var conn *ssh.Client
	for try, pause := 1, dialPause; ; try, pause = try+1, 2*pause {
		greeted := false
		conn, err = d.handshake(ctx, e, via, &ssh.ClientConfig{
			User: e.user, Auth: methods, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-mi-lb",
			HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
				greeted = true
				return check(host, remote, key)
			},
		})
		if err == nil {
			break
		}
		if greeted || try == dialTries || !isDropped(err) {
			return nil, refused(err, e, tried)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	c := &client{Client: conn, sessions: semaphore.NewWeighted(mostSessions), urgent: semaphore.NewWeighted(urgentSessions), gone: make(chan struct{})}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close() // nobody waits for it any more
		return nil, net.ErrClosed
	}
	d.clients[c] = struct{}{}
	go func() {
		_ = conn.Wait() // whoever uses it is told by their own call
		close(c.gone)
		d.mu.Lock()
		delete(d.clients, c)
		d.mu.Unlock()
	}()
	go c.keepAlive()
	return c, nil
}

// isDropped says whether the server hung up without a word.
func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// refused tells a login that is refused from other errors.
func refused(err error, e endpoint, tried []string) error {
	for _, text := range []string{"unable to authenticate", "Too many authentication failures", "unexpected message type 51"} {
		if strings.Contains(err.Error(), text) {
			return &LoginError{Login: e.String(), Tried: tried, cause: err}
		}
	}
	if strings.Contains(err.Error(), "no common algorithm for host key") {
		return fmt.Errorf("host %s shows none of the types of keys that are known of it; somebody may be in between. If the machine was installed anew, remove its known keys and run mi-lb bootstrap keyscan: %w", e.address(), err)
	}
	return err
}

// handshake dials and shakes hands within the time limit.
func (d *Dialer) handshake(ctx context.Context, e endpoint, via *client, config *ssh.ClientConfig) (*ssh.Client, error) {
	limit := d.limit(e, via)
	if err := limit.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer limit.Release(1)
	ctx, cancel := context.WithTimeoutCause(ctx, d.options.DialTimeout, fmt.Errorf("%s does not answer as an SSH server within %s", e.address(), d.options.DialTimeout))
	defer cancel()
	var conn net.Conn
	var err error
	if via == nil {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", e.address())
	} else {
		conn, err = via.DialContext(ctx, "tcp", e.address())
	}
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	// The handshake knows no context: closing the connection ends it.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	c, channels, requests, err := ssh.NewClientConn(conn, e.address(), config)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // the handshake's error says more
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, err
	}
	return ssh.NewClient(c, channels, requests), nil
}

// keepAlive ends a connection whose other end is gone without a word.
func (c *client) keepAlive() {
	tick := time.NewTicker(keepalive)
	defer tick.Stop()
	for {
		select {
		case <-c.gone:
			return
		case <-tick.C:
		}
		answered := make(chan error, 1)
		go func() {
			_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
			answered <- err
		}()
		select {
		case err := <-answered:
			if err == nil {
				continue
			}
		case <-time.After(keepalive):
		case <-c.gone:
			return
		}
		_ = c.Close() // it is dead already
		return
	}
}
