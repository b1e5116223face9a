// Command sandbox runs a whole platform on this machine, on loopback, until it is
// interrupted: Consul in two datacenters, a Marathon in each (an emulator that runs
// apps as local processes), and an edge in each. It prints what to paste to try it;
// with --check it pastes that itself and exits 0 or 1. "make demo" runs it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/sandbox"
)

// The most that a start and a check may take, on a slow machine too.
const (
	startAtMost = 2 * time.Minute
	checkAtMost = time.Minute
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(arguments []string, stdout, stderr io.Writer) int {
	s, err := parseFlags(arguments, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "sandbox:", err)
		return 2
	}
	// From here on a signal ends the platform in order, also while it starts.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	err = serve(ctx, s, stdout)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "sandbox: interrupted; nothing is left of it")
		return 1
	}
	if err != nil {
		fmt.Fprintln(stderr, "sandbox:", err)
		return 1
	}
	return 0
}

type settings struct {
	options     sandbox.Options
	servicePort int
	check       bool
}

func parseFlags(arguments []string, stderr io.Writer) (settings, error) {
	s := settings{options: sandbox.Options{Datacenters: sandbox.Usual()}}
	flags := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&s.check, "check", false, "paste the try-out, say what is seen, and exit 0 if all of it is right, else 1")
	flags.IntVar(&s.servicePort, "service-port", 9000, "service `port` of the app in the try-out")
	flags.StringVar(&s.options.Domain, "domain", "mi-lb.example.com", "`domain` under which the edges publish services")
	flags.StringVar(&s.options.Binary, "mi-lb", "", "the mi-lb to `run` (default bin/mi-lb of this checkout)")
	flags.StringVar(&s.options.HAProxy, "haproxy", "", "the haproxy to `run` (default the one on PATH)")
	for i := range s.options.Datacenters {
		dc := &s.options.Datacenters[i]
		flags.Func(dc.Name+".address", fmt.Sprintf("loopback `address` of %s: its tasks, service ports, and all of the following (default %s)", dc.Name, dc.Address), func(value string) (err error) {
			dc.Address, err = netip.ParseAddr(value)
			return err
		})
		for _, part := range []struct {
			name, what string
			port       *int
		}{
			{"marathon", "Marathon", &dc.Marathon}, {"consul", "Consul's API and page", &dc.Consul},
			{"http", "the edge's HTTP", &dc.HTTP}, {"admin", "the edge's admin interface", &dc.Admin},
		} {
			flags.IntVar(part.port, dc.Name+"."+part.name, *part.port, fmt.Sprintf("`port` of %s in %s; 0 for a free one", part.what, dc.Name))
		}
	}
	if err := flags.Parse(arguments); err != nil {
		return s, err
	}
	if flags.NArg() > 0 {
		return s, fmt.Errorf("unexpected argument %q; see --help", flags.Arg(0))
	}
	s.options.ServicePorts = []int{s.servicePort}
	return s, nil
}

func serve(ctx context.Context, s settings, stdout io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("it needs root, for a network namespace per task; try: sudo make demo")
	}
	began := time.Now()
	fmt.Fprintln(stdout, "starting Consul, Marathon and an edge in dc1 and dc2 …")
	starting, cancel := context.WithTimeout(ctx, startAtMost)
	defer cancel()
	box, err := sandbox.Start(starting, s.options)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Stop()) }()
	try := newTryOut(box, s.servicePort)
	fmt.Fprintf(stdout, "ready after %.1f s\n\n%s", time.Since(began).Seconds(), try)
	if s.check {
		checking, cancel := context.WithTimeout(ctx, checkAtMost)
		defer cancel()
		return check(checking, box, try, stdout)
	}
	fmt.Fprintln(stdout, "\nCtrl-C ends it and leaves nothing behind.")
	return waitForEnd(ctx, box, stdout)
}

// waitForEnd returns when a signal has come, or with an error when an edge has ended
// by itself.
func waitForEnd(ctx context.Context, box *sandbox.Sandbox, stdout io.Writer) error {
	ended := make(chan *sandbox.Site, len(box.Sites))
	for _, site := range box.Sites {
		go func() {
			<-site.Edge.Ended()
			ended <- site
		}()
	}
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "\nending …")
		return nil
	case site := <-ended:
		return fmt.Errorf("the edge of %s has ended by itself", site.Name)
	}
}

// localhost is how people write a loopback address.
func localhost(address string) string {
	return strings.Replace(address, "127.0.0.1:", "localhost:", 1)
}

func at(site *sandbox.Site, port int) string {
	return localhost(site.Address.String() + ":" + strconv.Itoa(port))
}
