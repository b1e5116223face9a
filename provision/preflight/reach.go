package preflight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// dialPatience is how long one machine tries to reach another.
const dialPatience = 5 * time.Second

// mostDials at once, from all machines together: with hundreds of them, a firewall
// that drops everything would otherwise be waited for for minutes.
const mostDials = 256

// Reach tries whether machines reach each other at the TCP ports of the platform,
// also across datacenters, and returns a problem for each that does not. UDP says
// nothing when it does not arrive, and is not tried. Machines without facts are left
// out.
//
// Where nothing listens at a port yet, systemd-socket-activate listens meanwhile.
// Connections are opened by the machines' SSH servers, so the machines need no
// program for it.
func Reach(ctx context.Context, p component.Platform, a component.Access) []component.Problem {
	ctx, cancel := context.WithCancel(ctx)
	var listening sync.WaitGroup
	defer listening.Wait()
	defer cancel()
	var mu sync.Mutex
	var problems []component.Problem
	add := func(problem component.Problem) {
		mu.Lock()
		defer mu.Unlock()
		problems = append(problems, problem)
	}
	ready := map[string][]Port{}
	var starting errgroup.Group
	starting.SetLimit(20)
	for _, n := range p.Cluster.Nodes() {
		f := p.Facts[n.Name]
		if f == nil || !n.Address.IsValid() {
			continue
		}
		starting.Go(func() error {
			ports, err := listen(ctx, p, n, f, a, &listening)
			if err != nil {
				add(component.Problem{
					Code: "ports-unknown", Node: n.Name, Message: fmt.Sprintf("it cannot be tried whether others reach its ports: %v", err),
					Advice: "make sure that no firewall is in between",
				})
			}
			mu.Lock()
			defer mu.Unlock()
			ready[n.Name] = ports
			return nil
		})
	}
	_ = starting.Wait() // none of them fails
	var dialling errgroup.Group
	dialling.SetLimit(mostDials)
	for _, n := range p.Cluster.Nodes() {
		for _, port := range ready[n.Name] {
			for _, path := range []struct {
				from []*cluster.Node
				to   netip.Addr
			}{{port.From, n.Address}, {port.WAN, n.WANAddress}} {
				for _, from := range path.from {
					if p.Facts[from.Name] == nil {
						continue
					}
					dialling.Go(func() error {
						if err := dial(ctx, a, from.Name, path.to, port.Number); err != nil && ctx.Err() == nil {
							add(component.Problem{
								Fatal: true, Code: "port-unreachable", Node: from.Name, Component: port.Component,
								Message: fmt.Sprintf("it does not reach %s at %s: %v", n.Name, net.JoinHostPort(path.to.String(), strconv.Itoa(port.Number)), err),
								Advice:  fmt.Sprintf("let tcp port %d through from %s to %s: firewalls, security groups, routes", port.Number, from.Name, n.Name),
							})
						}
						return nil
					})
				}
			}
		}
	}
	_ = dialling.Wait() // none of them fails
	slices.SortFunc(problems, func(a, b component.Problem) int { return strings.Compare(a.Node+a.Message, b.Node+b.Message) })
	return merged(problems)
}

// merged makes one problem of many of one machine: a firewall closes all ports.
func merged(problems []component.Problem) []component.Problem {
	const most = 3
	var kept []component.Problem
	more := map[string]int{}
	for _, p := range problems {
		if more[p.Node]++; more[p.Node] <= most || p.Code != "port-unreachable" {
			kept = append(kept, p)
		}
	}
	for i := range kept {
		if n := more[kept[i].Node] - most; n > 0 && (i+1 == len(kept) || kept[i+1].Node != kept[i].Node) {
			kept[i].Message += fmt.Sprintf(" (and %d more)", n)
		}
	}
	return kept
}

func dial(ctx context.Context, a component.Access, from string, to netip.Addr, port int) error {
	host, err := a.Host(from)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, dialPatience)
	defer cancel()
	conn, err := host.DialContext(ctx, "tcp", net.JoinHostPort(to.String(), strconv.Itoa(port)))
	if err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("there is no answer within %s", dialPatience)
		}
		return err
	}
	return conn.Close()
}

// errNoListener is a machine without the program that listens.
var errNoListener = errors.New("systemd-socket-activate is not there")

// listen makes sure that something listens at the ports that others must reach,
// until ctx ends, and returns those ports.
func listen(ctx context.Context, p component.Platform, n *cluster.Node, f *facts.Facts, a component.Access, running *sync.WaitGroup) ([]Port, error) {
	var wanted, there []Port
	for _, port := range Ports(p, n) {
		if port.Network != "tcp" || len(port.From)+len(port.WAN) == 0 {
			continue
		}
		if slices.ContainsFunc(f.Listeners, func(l facts.Listener) bool { return l.Network == "tcp" && int(l.Address.Port()) == port.Number }) {
			there = append(there, port)
		} else {
			wanted = append(wanted, port)
		}
	}
	if len(wanted) == 0 {
		return there, nil
	}
	host, err := a.Host(n.Name)
	if err != nil {
		return there, err
	}
	var options strings.Builder
	for _, port := range wanted {
		fmt.Fprintf(&options, " -l %s", net.JoinHostPort(n.Address.String(), strconv.Itoa(port.Number)))
	}
	// It ends when its input does, as it does when mi-lb is killed; and by itself
	// after two minutes.
	line := fmt.Sprintf(`program=$(command -v systemd-socket-activate || command -v /lib/systemd/systemd-socket-activate) || exit %d
timeout 120 "$program" --accept%s true >/dev/null 2>&1 & pid=$!
trap 'kill $pid 2>/dev/null' EXIT; trap 'exit 143' TERM INT HUP
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	kill -0 $pid 2>/dev/null || { echo 'it cannot listen there' >&2; exit 1; }
	if grep -qi ':%04X 00000000:0000 0A' /proc/$pid/net/tcp; then break; fi
	sleep 0.1
done
echo ready
cat >/dev/null`, noListener, options.String(), wanted[len(wanted)-1].Number)
	in, feed := io.Pipe()
	ready := make(chan struct{})
	ended := make(chan error, 1)
	running.Go(func() {
		_, err := host.Run(context.WithoutCancel(ctx), ssh.Command{Line: line, Stdin: in, Stdout: &signal{ready: ready}, Root: true})
		_ = in.CloseWithError(io.ErrClosedPipe)
		ended <- err
	})
	stop := context.AfterFunc(ctx, func() { _ = feed.Close() })
	select {
	case <-ready:
		return append(there, wanted...), nil
	case err := <-ended:
		stop()
		_ = feed.Close()
		var exit *ssh.ExitError
		if errors.As(err, &exit) && exit.Code == noListener {
			err = errNoListener
		}
		return there, err
	case <-ctx.Done():
		return there, context.Cause(ctx)
	}
}

// noListener is how the machine says that it has no program to listen with.
const noListener = 89

// signal closes a channel with the first thing written.
type signal struct {
	once  sync.Once
	ready chan struct{}
}

// Write implements io.Writer.
func (s *signal) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.ready) })
	return len(p), nil
}
