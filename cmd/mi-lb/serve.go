package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
	"github.com/mi-lb/mi-lb/lb/admin"
	"github.com/mi-lb/mi-lb/lb/haproxy"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/watch"
)

// configFlags are those of commands that read the configuration.
type configFlags struct {
	path  string
	flags *pflag.FlagSet
}

func (f *configFlags) add(command *cobra.Command) {
	command.Flags().StringVarP(&f.path, "config", "c", "", "configuration file (YAML)")
	config.AddFlags(command.Flags())
	f.flags = command.Flags()
}

func serveCommand() *cobra.Command {
	var flags configFlags
	command := &cobra.Command{
		Use:   "serve",
		Short: "Run the edge",
		Long: `Run the edge: watch Consul and Marathon, and make HAProxy route to what is there.

SIGHUP   reads the configuration and the templates again
SIGTERM  drains: HAProxy takes no new connection, finishes what it has for at most
         haproxy.drain, and ends; so does mi-lb. A second one ends both at once
SIGUSR2  ends mi-lb and leaves HAProxy serving, for the next mi-lb to take over`,
		Example: `  mi-lb serve --config /etc/mi-lb/mi-lb.yaml
  mi-lb serve --domain mi-lb.example.com --consul.address http://127.0.0.1:8500 --listen.http 0.0.0.0:8000`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			c, p, err := flags.load()
			if err != nil {
				return err
			}
			return serve(command.Context(), &flags, c, p)
		},
	}
	flags.add(command)
	return command
}

// serve runs until a signal ends it.
func serve(ctx context.Context, flags *configFlags, c config.Config, p paths) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR2)
	defer signal.Stop(signals)
	level := new(slog.LevelVar)
	log := newLogger(c, level)
	if err := os.MkdirAll(p.state, 0o755); err != nil {
		return fmt.Errorf("make state_dir: %w", err)
	}
	e, err := newEdge(c, p, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := listenAdmin(c)
	if err != nil {
		return err
	}
	server := &http.Server{Handler: e.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	var all sync.WaitGroup
	if listener != nil {
		all.Go(func() { _ = server.Serve(listener) })
		log.Info("admin interface", "address", listener.Addr().String())
	}
	failed := make(chan error, 1)
	all.Go(func() {
		if err := e.run(ctx); err != nil {
			failed <- err
		}
	})
	finish := func(leave bool, signals <-chan os.Signal) error {
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		cancel()
		err := e.stop(leave, signals)
		_ = server.Close()
		all.Wait()
		return err
	}
	for {
		select {
		case err := <-failed:
			return errors.Join(err, finish(true, signals))
		case s := <-signals:
			switch s {
			case syscall.SIGHUP:
				reload(e, flags, level, log)
			case syscall.SIGUSR2:
				log.Info("leaving HAProxy to the next mi-lb")
				return finish(true, signals)
			default:
				log.Info("draining", "signal", s.String())
				return finish(false, signals)
			}
		}
	}
}

func listenAdmin(c config.Config) (net.Listener, error) {
	if c.Admin.Listen == "" {
		return nil, nil
	}
	listener, err := net.Listen("tcp", c.Admin.Listen)
	if err != nil {
		return nil, fmt.Errorf("admin.listen: %w; another mi-lb may be running, or choose another address", err)
	}
	return listener, nil
}

// reload reads the configuration again. A mistake in it changes nothing.
func reload(e *edge, flags *configFlags, level *slog.LevelVar, log *slog.Logger) {
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReloading)
	defer func() { _, _ = daemon.SdNotify(false, daemon.SdNotifyReady) }()
	c, _, err := flags.load()
	if err != nil {
		log.Error("the configuration is not taken over: it has a mistake", "error", err)
		return
	}
	setLevel(level, c.Log.Level)
	if err := e.reconfigure(c); err != nil {
		log.Error("the templates are not taken over", "error", err)
		return
	}
	log.Info("configuration read again")
}

// edge is everything that serves, wired.
type edge struct {
	log    *slog.Logger
	paths  paths
	driver *haproxy.Driver
	engine interface{ Reload() error }
	// registry of metrics; handler serves it.
	registry *prometheus.Registry

	mu       sync.Mutex
	config   config.Config
	world    *watch.World
	watching *watching
	waiting  string
	// settled: all sources have answered or failed. Ready is who runs the table of
	// that moment, readyFrom.
	settled   bool
	readyFrom uint64
	ready     bool

	// changed is signalled when the policy or the watchers must be looked at again.
	changed chan struct{}
	resync  chan struct{}
	done    chan struct{}
}

var _ admin.Edge = (*edge)(nil)

func newEdge(c config.Config, p paths, log *slog.Logger) (*edge, error) {
	engine, err := newEngine(c, log)
	if err != nil {
		return nil, err
	}
	s, err := settings(c, p)
	if err != nil {
		return nil, err
	}
	if c.HAProxy.Manage {
		// HAProxy inherits the limit. One that is attached has its own unit's.
		if s.Descriptors, err = process.Descriptors(render.MostDescriptors); err != nil {
			log.Warn("HAProxy may be able to take few connections", "error", err)
		}
	}
	registry := prometheus.NewRegistry()
	metrics := admin.NewMetrics(registry, buildVersion())
	driver, err := haproxy.New(haproxy.Options{
		Path: c.HAProxy.Path, Managed: c.HAProxy.Manage, MasterSocket: p.master, StateFile: p.table,
		Settings: s, Engine: engine, Drain: c.HAProxy.Drain, ReloadEvery: c.HAProxy.ReloadEvery, DriftEvery: c.HAProxy.DriftEvery,
		Observer: metrics, Log: log,
	})
	if err != nil {
		return nil, err
	}
	e := &edge{
		log: log, paths: p, driver: driver, engine: engine, registry: registry, config: c,
		waiting: "starting", changed: make(chan struct{}, 1), resync: make(chan struct{}), done: make(chan struct{}),
	}
	registry.MustRegister(admin.Collector(e, time.Now))
	return e, nil
}

func (e *edge) handler() http.Handler {
	return admin.Handler(e, e.registry, buildVersion(), e.log)
}
