package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
)

// Healthy implements [component.Component]: the machine's resolver, and the one for
// containers, know the address of Consul's servers.
func (dns) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	host, err := a.Host(n.Name)
	if err != nil {
		return err
	}
	f := p.Facts[n.Name]
	if f == nil {
		return fmt.Errorf("nothing is known about %s", n.Name)
	}
	s, _ := read(p, n, f)
	ask := s.Listen
	if s.Mode == "resolved" {
		ask = []string{"127.0.0.53"}
		if s.containers.IsValid() {
			ask = append(ask, s.containers.String())
		}
	}
	for _, server := range ask {
		at := net.JoinHostPort(server, strconv.Itoa(s.Port))
		if a, err := netip.ParseAddr(server); err == nil && a == s.containers {
			// docker0 is down while no container is on it, and its address is there.
			if err := knows(ctx, host, at, s.Domain); err != nil {
				return fmt.Errorf("containers cannot resolve names: %w", err)
			}
			continue
		}
		if err := knows(ctx, host, at, s.Domain); err != nil {
			return err
		}
	}
	return nil
}

// knows asks a name server for Consul's servers, over TCP, which goes through SSH.
func knows(ctx context.Context, host component.Host, at, domain string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		c, err := host.DialContext(ctx, "tcp", at)
		if err != nil {
			return nil, err
		}
		return stream{c, context.AfterFunc(ctx, func() { _ = c.Close() })}, nil
	}}
	name := "consul.service." + domain + "."
	addresses, err := resolver.LookupNetIP(ctx, "ip4", name)
	if err != nil {
		return fmt.Errorf("ask %s for %s: %w", at, name, err)
	}
	if len(addresses) == 0 {
		return fmt.Errorf("%s knows no address of %s", at, name)
	}
	return nil
}

// stream is a connection that is no socket: the resolver then speaks as over TCP. One
// through SSH has no deadlines; it ends with its context.
type stream struct {
	net.Conn
	release func() bool
}

// Close implements [net.Conn].
func (s stream) Close() error {
	s.release()
	return s.Conn.Close()
}

// SetDeadline implements [net.Conn].
func (stream) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements [net.Conn].
func (stream) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements [net.Conn].
func (stream) SetWriteDeadline(time.Time) error { return nil }
