package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/mi-lb/mi-lb/watch/registrator"
)

// registratorCommand is a drop-in for gliderlabs/registrator. Its flags are read
// by the standard library's parser, for that program's users write -ip and
// -useIpFromLabel with one dash.
func registratorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "registrator [flags] <registry URI>",
		Short: "Register this host's containers with the local Consul agent",
		Long: `Keeps the services of the local Consul agent equal to the containers that run
on this host. It takes the flags, SERVICE_* metadata and names of
gliderlabs/registrator 7.

Docker is found as DOCKER_HOST says, else at /var/run/docker.sock. Consul's token
comes from CONSUL_HTTP_TOKEN or CONSUL_HTTP_TOKEN_FILE.

` + registratorUsage(),
		Example: `  mi-lb registrator -ip 10.0.0.7 consul://127.0.0.1:8500
  mi-lb registrator -ip 10.0.0.7 -marathon-names -tags dc1 consul-unix:///run/consul/http.sock`,
		DisableFlagParsing: true,
		SilenceUsage:       true,
		ValidArgsFunction:  completeRegistrator,
		RunE: func(command *cobra.Command, arguments []string) error {
			f, err := parseRegistrator(arguments)
			if errors.Is(err, flag.ErrHelp) {
				return command.Help()
			}
			if err != nil {
				return usageError{fmt.Errorf("%w; see %s --help", err, command.CommandPath())}
			}
			ctx, stop := signal.NotifyContext(command.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return runRegistrator(ctx, f, command.ErrOrStderr())
		},
	}
}

// registratorFlags are the command line's values.
type registratorFlags struct {
	uri                                                      string
	ip, addressLabel, tags, deregister, hostname, listen     string
	internal, explicit, requireLabel, cleanup, marathonNames bool
	scriptChecks, dockerHealth                               bool
	ttl, ttlRefresh, resync, retryAttempts, retryInterval    int
	drainTimeout                                             time.Duration
	logFormat, logLevel                                      string
}

func registratorFlagSet(f *registratorFlags) *flag.FlagSet {
	set := flag.NewFlagSet("registrator", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.ip, "ip", "", "`address` to register published ports at (default: the host's)")
	set.BoolVar(&f.internal, "internal", false, "register exposed ports at the container's own address")
	set.BoolVar(&f.explicit, "explicit", false, "register only containers that give a SERVICE_NAME")
	set.BoolVar(&f.requireLabel, "require-label", false, "register only containers that have a SERVICE_REGISTER label")
	set.StringVar(&f.addressLabel, "useIpFromLabel", "", "register the address that this `label` of the container holds")
	set.StringVar(&f.tags, "tags", "", "comma-separated `tags` for all services; may be a Go template over the container")
	set.StringVar(&f.deregister, "deregister", "always", "deregister containers that ended: `always or on-success`")
	set.BoolVar(&f.cleanup, "cleanup", false, "also deregister what gliderlabs/registrator left behind on this host")
	set.IntVar(&f.resync, "resync", 0, "compare with the agent at least every so many `seconds`; writes only differences (default 30)")
	set.IntVar(&f.retryAttempts, "retry-attempts", -1, "`times` to try again to reach Consul at start, -1 for ever")
	set.IntVar(&f.retryInterval, "retry-interval", 2000, "`milliseconds` between these attempts")
	set.IntVar(&f.ttl, "ttl", 0, "accepted for compatibility; Consul's services do not expire")
	set.IntVar(&f.ttlRefresh, "ttl-refresh", 0, "accepted for compatibility")
	set.BoolVar(&f.marathonNames, "marathon-names", false, "name Marathon's tasks for their app where they give no SERVICE_NAME")
	set.BoolVar(&f.scriptChecks, "script-checks", false, "pass on checks that run commands on this host")
	set.BoolVar(&f.dockerHealth, "docker-health", true, "register a container's HEALTHCHECK as a check")
	set.DurationVar(&f.drainTimeout, "drain-timeout", time.Hour, "how long a container that was told to stop and runs on gets no traffic")
	set.StringVar(&f.hostname, "hostname", "", "this host's `name`, the first part of service ids (default: the system's)")
	set.StringVar(&f.listen, "listen", "127.0.0.1:9095", "`address` for /metrics, /healthz, /readyz and /v1/status; empty for none")
	set.StringVar(&f.logFormat, "log-format", "text", "`text or json`")
	set.StringVar(&f.logLevel, "log-level", "info", "`debug, info, warn or error`")
	return set
}

func registratorUsage() string {
	var b strings.Builder
	set := registratorFlagSet(&registratorFlags{})
	set.SetOutput(&b)
	b.WriteString("Registrator flags:\n")
	set.PrintDefaults()
	return strings.TrimRight(b.String(), "\n")
}

func completeRegistrator(_ *cobra.Command, _ []string, toComplete string) ([]string, cobra.ShellCompDirective) {
	if !strings.HasPrefix(toComplete, "-") {
		return []string{"consul://127.0.0.1:8500", "consul-tls://127.0.0.1:8501", "consul-unix://"}, cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
	}
	dashes := "-"
	if strings.HasPrefix(toComplete, "--") {
		dashes = "--"
	}
	var names []string
	registratorFlagSet(&registratorFlags{}).VisitAll(func(f *flag.Flag) { names = append(names, dashes+f.Name+"\t"+f.Usage) })
	return names, cobra.ShellCompDirectiveNoFileComp
}

// parseRegistrator reads the command line; its errors say what to write instead.
func parseRegistrator(arguments []string) (*registratorFlags, error) {
	f := &registratorFlags{}
	set := registratorFlagSet(f)
	if err := set.Parse(arguments); err != nil {
		return nil, err
	}
	switch set.NArg() {
	case 1:
		f.uri = set.Arg(0)
	case 0:
		return nil, errors.New("the registry URI is missing; write it last: consul://127.0.0.1:8500")
	default:
		return nil, fmt.Errorf("unexpected %q; flags come first, then one registry URI", set.Arg(1))
	}
	given := map[string]bool{}
	set.Visit(func(f *flag.Flag) { given[f.Name] = true })
	switch {
	case f.deregister != "always" && f.deregister != "on-success":
		return nil, fmt.Errorf("-deregister %q: it is always or on-success", f.deregister)
	case (f.ttl == 0) != (f.ttlRefresh == 0):
		return nil, errors.New("-ttl and -ttl-refresh must be given together or not at all")
	case f.ttl != 0 && f.ttl <= f.ttlRefresh:
		return nil, errors.New("-ttl must be greater than -ttl-refresh")
	case f.retryInterval <= 0:
		return nil, errors.New("-retry-interval must be greater than 0")
	case f.resync < 0:
		return nil, errors.New("-resync must not be negative")
	case f.drainTimeout <= 0:
		return nil, errors.New("-drain-timeout must be greater than 0")
	}
	if given["ip"] {
		ip, err := netip.ParseAddr(f.ip)
		if err != nil || ip.IsUnspecified() {
			return nil, fmt.Errorf("-ip %q: it is not an address that can be reached", f.ip)
		}
	}
	return f, nil
}

// options are the flags' as the registrator takes them.
func (f *registratorFlags) options() (registrator.Options, error) {
	var o registrator.Options
	host := f.hostname
	if host == "" {
		var err error
		if host, err = os.Hostname(); err != nil {
			return o, fmt.Errorf("this host's name: %w; give it with -hostname", err)
		}
	}
	address := f.ip
	if address == "" {
		ip, err := registrator.HostAddress(host)
		if err != nil {
			return o, fmt.Errorf("this host's address: %w; give it with -ip", err)
		}
		address = ip.String()
	}
	tags, err := registrator.ParseTagTemplate(f.tags)
	if err != nil {
		return o, usageError{err}
	}
	agent, err := registrator.NewAgent(f.uri)
	if err != nil {
		return o, usageError{err}
	}
	engine, err := registrator.NewEngine()
	if err != nil {
		return o, err
	}
	return registrator.Options{
		Policy: registrator.Policy{
			Host: host, Address: address, ForceAddress: f.ip != "", Internal: f.internal, Explicit: f.explicit,
			RequireLabel: f.requireLabel, AddressLabel: f.addressLabel, KeepFailed: f.deregister == "on-success", Cleanup: f.cleanup,
			MarathonNames: f.marathonNames, ScriptChecks: f.scriptChecks, DockerHealth: f.dockerHealth,
		},
		Engine: engine, Agent: agent, Tags: tags,
		Resync: time.Duration(f.resync) * time.Second, DrainTimeout: f.drainTimeout,
		RetryAttempts: f.retryAttempts, RetryInterval: time.Duration(f.retryInterval) * time.Millisecond,
	}, nil
}

// runRegistrator registers until the context ends.
func runRegistrator(ctx context.Context, f *registratorFlags, stderr io.Writer) error {
	log, err := f.logger(stderr)
	if err != nil {
		return usageError{err}
	}
	options, err := f.options()
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	options.Log, options.Metrics = log, metrics
	r, err := registrator.New(options)
	if err != nil {
		return err
	}
	if f.listen != "" {
		listener, err := net.Listen("tcp", f.listen)
		if err != nil {
			return fmt.Errorf("listen for metrics and health: %w; give another address with -listen, or none with -listen ''", err)
		}
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
		mux.Handle("/", r.Handler())
		server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
		go server.Serve(listener) // until Close
		defer server.Close()
	}
	log.Info("registrator starts", "agent", f.uri, "host", options.Policy.Host, "address", options.Policy.Address, "listen", f.listen)
	// Not an error where systemd did not start us. Docker and Consul may come
	// later: units that need services look at /readyz.
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd was not told that registrator is ready", "error", err)
	}
	defer daemon.SdNotify(false, daemon.SdNotifyStopping)
	return r.Run(ctx)
}

func (f *registratorFlags) logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("-log-level %q: it is debug, info, warn or error", f.logLevel)
	}
	options := &slog.HandlerOptions{Level: level}
	switch f.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, fmt.Errorf("-log-format %q: it is text or json", f.logFormat)
}
