package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// Sandbox is a running platform.
type Sandbox struct {
	// Options are those given, with what they left out.
	Options Options
	Sites   []*Site
	// Dir is where everything is written, removed by Stop.
	Dir string

	guard *child.Guard
	log   *os.File
}

// Site is one datacenter's part of the platform.
type Site struct {
	Datacenter
	Consul   *consul.Agent
	Marathon *marathon.Cluster
	Edge     *Edge

	stopRegistrar context.CancelFunc
	registrar     sync.WaitGroup
}

// Start brings a platform up and returns when every edge is ready. The context
// bounds the start only; [Sandbox.Stop] ends the platform. After an error nothing is
// left of it.
func Start(ctx context.Context, options Options) (*Sandbox, error) {
	options, err := options.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	if err := options.assign(); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", err)
	}
	s := &Sandbox{Options: options}
	if err := s.start(ctx); err != nil {
		return nil, fmt.Errorf("start sandbox: %w", errors.Join(err, s.Stop()))
	}
	return s, nil
}

func (s *Sandbox) start(ctx context.Context) error {
	var err error
	if s.guard, err = child.StartGuard(); err != nil {
		return err
	}
	// The paths of sockets are below it, and must be short.
	parent := os.TempDir()
	if len(parent) > 40 {
		parent = "/tmp"
	}
	if s.Dir, err = os.MkdirTemp(parent, "mi-lb-sandbox-"); err != nil {
		return err
	}
	if err := s.guard.Folder(s.Dir); err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(s.Dir, "sandbox.log")); err != nil {
		return err
	}
	for _, dc := range s.Options.Datacenters {
		if err := os.Mkdir(filepath.Join(s.Dir, dc.Name), 0o700); err != nil {
			return err
		}
		s.Sites = append(s.Sites, &Site{Datacenter: dc})
	}
	// The others join the first, which therefore comes first.
	if err := s.startConsul(ctx, s.Sites[0]); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	for i, site := range s.Sites {
		group.Go(func() error {
			if i > 0 {
				if err := s.startConsul(groupCtx, site); err != nil {
					return err
				}
			}
			return s.startMarathon(i, site)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	for _, site := range s.Sites {
		if err := site.Consul.WaitDatacenters(ctx, s.names()...); err != nil {
			return err
		}
	}
	for _, site := range s.Sites {
		if err := s.startEdge(site); err != nil {
			return err
		}
	}
	for _, site := range s.Sites {
		if err := site.Edge.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *Sandbox) names() []string {
	var names []string
	for _, site := range s.Sites {
		names = append(names, site.Name)
	}
	return names
}

func (s *Sandbox) startConsul(ctx context.Context, site *Site) error {
	options := consul.Options{
		Datacenter: site.Name, Bind: site.Address.String(), Ports: consul.Ports{HTTP: site.Datacenter.Consul},
		Config: map[string]any{"ui_config": map[string]any{"enabled": true}},
	}
	if first := s.Sites[0]; first != site {
		options.JoinWAN = []string{first.Consul.SerfWAN()}
	}
	if s.Options.Consul != nil {
		s.Options.Consul(site.Name, &options)
	}
	agent, err := consul.Start(ctx, options)
	if err != nil {
		return err
	}
	site.Consul = agent
	return s.guard.Folder(filepath.Dir(agent.Socket()))
}

func (s *Sandbox) startMarathon(index int, site *Site) error {
	registrar := newRegistrar(site.Datacenter, site.Consul, slog.New(slog.NewTextHandler(s.log, nil)).With("datacenter", site.Name))
	ctx, cancel := context.WithCancel(context.Background())
	site.stopRegistrar = cancel
	site.registrar.Go(func() { registrar.run(ctx) })
	// A share of the service ports that Marathon gives to apps that do not ask for
	// one, so that apps of different datacenters do not get the same.
	share := 10000 / len(s.Sites)
	options := marathon.Options{
		Listen: []string{addressOf(site.Datacenter, site.Datacenter.Marathon)},
		Agents: []marathon.Agent{{
			Address: site.Address, ContainerNetwork: site.containerNetwork(), Region: site.Name,
		}},
		Observer: registrar, LocalPortMin: 10000 + index*share, LocalPortMax: 10000 + (index+1)*share,
		Dir: filepath.Join(s.Dir, site.Name, "tasks"), Logger: registrar.log,
	}
	if s.Options.Marathon != nil {
		s.Options.Marathon(site.Name, &options)
	}
	cluster, err := marathon.Start(options)
	if err != nil {
		return err
	}
	site.Marathon = cluster
	return nil
}

func (s *Sandbox) startEdge(site *Site) error {
	var clusters []any
	for _, other := range s.Sites {
		clusters = append(clusters, map[string]any{"url": other.Marathon.URLs(), "name": other.Name, "datacenter": other.Name})
	}
	configuration := map[string]any{
		"domain": s.Options.Domain, "datacenter": site.Name,
		"consul": map[string]any{"address": "http://" + site.Consul.HTTPAddress()}, "marathon": clusters,
		"listen": map[string]any{
			"http": []string{addressOf(site.Datacenter, site.HTTP)}, "service_port_address": site.Address.String(),
		},
		"haproxy": map[string]any{"path": s.Options.HAProxy},
		"admin":   map[string]any{"listen": addressOf(site.Datacenter, site.Admin)},
	}
	if s.Options.Edge != nil {
		s.Options.Edge(site.Name, configuration)
	}
	edge, err := newEdge(filepath.Join(s.Dir, site.Name), s.Options.Binary, site.Datacenter, configuration)
	if err != nil {
		return err
	}
	site.Edge = edge
	return edge.Start()
}

func addressOf(dc Datacenter, port int) string {
	return net.JoinHostPort(dc.Address.String(), strconv.Itoa(port))
}

// Site is the datacenter's part, nil for a name that none has.
func (s *Sandbox) Site(name string) *Site {
	for _, site := range s.Sites {
		if site.Name == name {
			return site
		}
	}
	return nil
}

// Log is the path of what Marathon and Registrator did.
func (s *Sandbox) Log() string { return filepath.Join(s.Dir, "sandbox.log") }

// Stop ends everything and removes every file. The error names what did not end as
// it should have; it has ended all the same. It is safe to call twice.
func (s *Sandbox) Stop() error {
	if s.guard == nil {
		return nil
	}
	// Edges go first, as whoever takes a platform down would do it: what they see
	// of its end is nobody's business.
	errs := make([]error, len(s.Sites))
	s.each(func(i int, site *Site) {
		if site.Edge != nil {
			errs[i] = site.Edge.Stop()
		}
	})
	s.each(func(_ int, site *Site) {
		if site.Marathon != nil {
			site.Marathon.Close()
		}
		if site.stopRegistrar != nil {
			site.stopRegistrar()
			site.registrar.Wait()
		}
		if site.Consul != nil {
			site.Consul.Stop()
		}
	})
	if s.log != nil {
		_ = s.log.Close()
	}
	if s.Dir != "" {
		if err := os.RemoveAll(s.Dir); err != nil {
			errs = append(errs, fmt.Errorf("remove what the sandbox wrote: %w", err))
		}
	}
	s.guard.Stop()
	s.guard = nil
	return errors.Join(errs...)
}

func (s *Sandbox) each(do func(int, *Site)) {
	var all sync.WaitGroup
	for i, site := range s.Sites {
		all.Go(func() { do(i, site) })
	}
	all.Wait()
}
