// Command marathon-emulator runs an emulated Marathon cluster until it is
// interrupted. It prints one line per member, "listening on URL", once all of
// them answer.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	options, err := parseFlags(os.Args[1:])
	switch {
	case errors.Is(err, flag.ErrHelp):
		return
	case err != nil:
		fmt.Fprintln(os.Stderr, "marathon-emulator:", err)
		os.Exit(2)
	}
	if err := run(ctx, options); err != nil {
		fmt.Fprintln(os.Stderr, "marathon-emulator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, options marathon.Options) error {
	cluster, err := marathon.Start(options)
	if err != nil {
		return err
	}
	defer cluster.Close()
	for _, url := range cluster.URLs() {
		fmt.Println("listening on", url)
	}
	<-ctx.Done()
	return nil
}

func parseFlags(args []string) (marathon.Options, error) {
	var options marathon.Options
	var passwordFile, servicePorts string
	var verbose bool
	flags := flag.NewFlagSet("marathon-emulator", flag.ContinueOnError)
	flags.Func("listen", "`address` of a member; again for each further one (default 127.0.0.1:8080)", func(value string) error {
		options.Listen = append(options.Listen, value)
		return nil
	})
	flags.Func("agent", "an agent as `hostname=address[,first-last]`, its host ports included; again for each further one (default 127.0.0.1,31000-32000)", func(value string) error {
		agent, err := parseAgent(value)
		options.Agents = append(options.Agents, agent)
		return err
	})
	flags.StringVar(&options.Version, "version", "1.11.24", "Marathon `version` to emulate, from 0.8 on")
	flags.StringVar(&options.Username, "username", "", "ask for this `name` in HTTP Basic")
	flags.StringVar(&passwordFile, "password-file", "", "`file` with the password for -username")
	flags.StringVar(&servicePorts, "service-ports", "10000-20000", "`range` of service ports to assign")
	flags.DurationVar(&options.HeartbeatInterval, "heartbeat", 10*time.Second, "`interval` of event stream heartbeats")
	flags.BoolVar(&options.Fake, "fake", false, "start no processes")
	flags.StringVar(&options.Dir, "dir", "", "`directory` for sandboxes, kept (default a temporary one)")
	flags.BoolVar(&verbose, "v", false, "log the life of tasks to standard error")
	if err := flags.Parse(args); err != nil {
		return options, err
	}
	if flags.NArg() > 0 {
		return options, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if len(options.Listen) == 0 {
		options.Listen = []string{"127.0.0.1:8080"}
	}
	if verbose {
		options.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	var err error
	if options.LocalPortMin, options.LocalPortMax, err = parseRange(servicePorts); err != nil {
		return options, err
	}
	if passwordFile != "" {
		password, err := os.ReadFile(passwordFile)
		if err != nil {
			return options, fmt.Errorf("read password: %w", err)
		}
		options.Password = strings.TrimRight(string(password), "\r\n")
	}
	return options, nil
}

func parseAgent(value string) (marathon.Agent, error) {
	var agent marathon.Agent
	place, ports, hasPorts := strings.Cut(value, ",")
	hostname, address, named := strings.Cut(place, "=")
	if !named {
		address = hostname
	}
	var err error
	if agent.Address, err = netip.ParseAddr(address); err != nil {
		return agent, fmt.Errorf("agent %q: %w", value, err)
	}
	agent.Hostname = hostname
	if hasPorts {
		agent.PortMin, agent.PortMax, err = parseRange(ports)
	}
	return agent, err
}

func parseRange(value string) (first, last int, err error) {
	low, high, found := strings.Cut(value, "-")
	first, err1 := strconv.Atoi(low)
	last, err2 := strconv.Atoi(high)
	if !found || err1 != nil || err2 != nil || first < 1 || last > 65535 || first > last {
		return 0, 0, fmt.Errorf("ports %q are not a range like 31000-32000", value)
	}
	return first, last, nil
}
