package main

import (
	"context"
	"fmt"
	stdlog "log"
	"log/slog"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/cmd/mi-lb/config"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
	"github.com/mi-lb/mi-lb/watch/consul"
	"github.com/mi-lb/mi-lb/watch/file"
	"github.com/mi-lb/mi-lb/watch/marathon"
)

// noDatacenter is what the local datacenter is called where nobody says.
const noDatacenter = "local"

// policy is the routing policy of the configuration.
func policy(c config.Config) routing.Policy {
	p := routing.Policy{
		Domain: c.Domain, ConsulDomain: c.Consul.Domain,
		Exposure: routing.Exposure(c.Exposure), Locality: routing.Locality(c.Locality), Balance: c.Balance,
		Groups:   map[watch.Source][]string{{Kind: watch.Consul}: c.Consul.Groups},
		Reserved: map[int]string{}, Passthrough: len(c.Listen.HTTPS) > 0,
	}
	for _, m := range c.Marathon {
		p.Groups[watch.Source{Kind: watch.Marathon, Name: m.ClusterName()}] = m.Groups
	}
	services := netip.MustParseAddr(c.Listen.ServicePortAddress) // validated
	for _, l := range c.Listeners() {
		at := l.Address.Addr()
		if at == services || at.IsUnspecified() || services.IsUnspecified() {
			p.Reserved[int(l.Address.Port())] = l.Key
		}
	}
	return p
}

// paths that the configuration leaves to the state directory.
type paths struct {
	state, snapshot, table, config, runtime, master string
}

func pathsOf(c config.Config) (paths, error) {
	state, err := filepath.Abs(c.StateDir)
	if err != nil {
		return paths{}, fmt.Errorf("state_dir: %w", err)
	}
	or := func(given, name string) string {
		if given != "" {
			return given
		}
		return filepath.Join(state, name)
	}
	return paths{
		state: state, snapshot: filepath.Join(state, "snapshot.json"), table: filepath.Join(state, "table.json"),
		config: or(c.HAProxy.ConfigDir, "haproxy"), runtime: or(c.HAProxy.RuntimeSocket, "haproxy.sock"),
		master: or(c.HAProxy.MasterSocket, "haproxy-master.sock"),
	}, nil
}

// settings are what HAProxy's files say beside the table.
func settings(c config.Config, p paths) (render.Settings, error) {
	ports, err := config.ParsePortRange(c.Listen.ServicePortRange)
	if err != nil {
		return render.Settings{}, err
	}
	h := c.HAProxy
	s := render.Settings{
		Dir: p.config, Socket: p.runtime,
		HTTP: c.Listen.HTTP, HTTPS: c.Listen.HTTPS, AppID: c.Listen.AppID,
		ServicePortAddress: c.Listen.ServicePortAddress,
		ServicePortRange:   render.PortRange{First: ports.First, Last: ports.Last},
		Certificates:       c.Listen.Certificates, Domain: c.Domain,
		User: h.User, Group: h.Group, MaxConn: h.MaxConn, Threads: h.Threads, Log: h.Log,
		LogFormat: h.LogFormat, LogErrors: h.LogErrors,
		BufferSize: h.BufferSize, HTTPReuse: h.HTTPReuse, AbortOnClose: h.AbortOnClose,
		HardStopAfter: h.HardStopAfter, SpareBackends: h.SpareBackends,
		Timeouts: render.Timeouts{
			Connect: h.Timeout.Connect, Client: h.Timeout.Client, Server: h.Timeout.Server, Tunnel: h.Timeout.Tunnel,
			Request: h.Timeout.HTTPRequest, KeepAlive: h.Timeout.KeepAlive, Queue: h.Timeout.Queue, Fin: h.Timeout.Fin,
		},
		MaxReloads: h.MaxReloads, Retries: h.Retries,
		Check: render.Check{
			Interval: h.Check.Interval, FastInterval: h.Check.FastInterval, DownInterval: h.Check.DownInterval,
			Rise: h.Check.Rise, Fall: h.Check.Fall, ErrorLimit: h.Check.ErrorLimit,
		},
	}
	for _, network := range h.TrustedProxies {
		s.TrustedProxies = append(s.TrustedProxies, netip.MustParsePrefix(network)) // validated
	}
	if s.User == "" && h.Manage && os.Geteuid() == 0 {
		// A worker needs none of root's rights: the master has bound its ports.
		if u, err := user.Lookup("haproxy"); err == nil {
			s.User = u.Username
			if g, err := user.LookupGroupId(u.Gid); err == nil && s.Group == "" {
				s.Group = g.Name
			}
		}
	}
	return s, nil
}

func newEngine(c config.Config, log *slog.Logger) (*templates.Engine, error) {
	// consul-template writes the values of keys to the standard logger.
	stdlog.SetOutput(templates.LogFilter(os.Stderr))
	o := templates.Options{Dir: c.HAProxy.Templates, Logger: log}
	if c.Consul.Address != "" {
		o.Consul = &templates.Consul{
			Address: c.Consul.Address, TokenFile: c.Consul.TokenFile,
			CAFile: c.Consul.CAFile, CertFile: c.Consul.CertFile, KeyFile: c.Consul.KeyFile,
		}
	}
	return templates.New(o)
}

func consulConfig(c config.Config, log *slog.Logger) consul.Config {
	return consul.Config{
		Address: c.Consul.Address, TokenFile: c.Consul.TokenFile,
		TLS:         consul.TLS{CAFile: c.Consul.CAFile, CertFile: c.Consul.CertFile, KeyFile: c.Consul.KeyFile},
		Datacenters: c.Consul.Datacenters, Datacenter: c.Datacenter, Polls: c.Consul.LongPolls, Logger: log,
	}
}

// localDatacenter is the configured one, else the Consul agent's own, else the one of
// the saved snapshot; without any of them it waits for Consul.
func localDatacenter(ctx context.Context, c config.Config, saved *watch.Snapshot, log *slog.Logger) (string, error) {
	if c.Datacenter != "" {
		return c.Datacenter, nil
	}
	if c.Consul.Address == "" {
		return noDatacenter, nil
	}
	if saved != nil && saved.Datacenter != "" {
		return saved.Datacenter, nil
	}
	w, err := consul.New(consulConfig(c, log))
	if err != nil {
		return "", err
	}
	return w.LocalDatacenter(ctx)
}

// watchers of everything that the configuration names, each with what it said when
// mi-lb last ran.
func watchers(c config.Config, datacenter string, saved *watch.Snapshot, log *slog.Logger) ([]watch.Watcher, error) {
	var all []watch.Watcher
	var known []*watch.Part
	if saved != nil {
		known = saved.Parts
	}
	if c.Consul.Address != "" {
		cc := consulConfig(c, log.With("source", "consul"))
		cc.Datacenter, cc.Known = datacenter, known
		w, err := consul.New(cc)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	for _, m := range c.Marathon {
		mc := marathon.Config{
			URLs: m.URL, Name: m.ClusterName(), Datacenter: m.Datacenter, Username: m.Username, PasswordFile: m.PasswordFile,
			CAFile: m.CAFile, Logger: log.With("source", "marathon/"+m.ClusterName()),
		}
		if mc.Datacenter == "" {
			mc.Datacenter = datacenter
		}
		if saved != nil {
			mc.Saved = saved.Part(watch.Source{Kind: watch.Marathon, Name: m.ClusterName()})
		}
		w, err := marathon.New(mc)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	if c.File != "" {
		w, err := file.New(file.Config{Path: c.File, Datacenter: datacenter, Logger: log.With("source", "file")})
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// configured is the saved snapshot without the parts of sources that the
// configuration no longer names: nobody would ever update them.
func configured(c config.Config, saved *watch.Snapshot) *watch.Snapshot {
	if saved == nil {
		return nil
	}
	names := map[string]bool{}
	for _, m := range c.Marathon {
		names[m.ClusterName()] = true
	}
	out := *saved
	out.Parts = slices.DeleteFunc(slices.Clone(saved.Parts), func(p *watch.Part) bool {
		switch p.Source.Kind {
		case watch.Consul:
			return c.Consul.Address == "" ||
				(p.Source.Name != "" && len(c.Consul.Datacenters) > 0 && !slices.Contains(c.Consul.Datacenters, p.Source.Name))
		case watch.Marathon:
			return !names[p.Source.Name]
		case watch.File:
			path, _, _ := strings.Cut(p.Source.Name, "#")
			return path != c.File
		}
		return true
	})
	return &out
}

// load reads and validates the configuration that a command's flags name, and checks
// the rest of what can be known without connecting to anything.
func (f *configFlags) load() (config.Config, paths, error) {
	c, err := config.Load(f.path, f.flags)
	if err != nil {
		return config.Config{}, paths{}, err
	}
	p, err := pathsOf(c)
	if err != nil {
		return config.Config{}, paths{}, &config.Error{Where: f.path, Message: err.Error()}
	}
	s, err := settings(c, p)
	if err == nil {
		err = s.Validate()
	}
	if err != nil {
		return config.Config{}, paths{}, &config.Error{Where: f.path, Message: err.Error()}
	}
	return c, p, nil
}

func newLogger(c config.Config, level *slog.LevelVar) *slog.Logger {
	setLevel(level, c.Log.Level)
	options := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, options))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, options))
}

func setLevel(level *slog.LevelVar, text string) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(text)); err == nil { // validated
		level.Set(l)
	}
}
