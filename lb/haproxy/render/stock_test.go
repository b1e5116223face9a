package render

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/templates/consultest"
	"github.com/mi-lb/mi-lb/watch"
)

// catalog is a world of one datacenter: services with the addresses of their instances.
func catalog(services map[string][]string) *watch.Snapshot {
	part := &watch.Part{Source: watch.Source{Kind: watch.Consul, Name: "dc1"}, Datacenter: "dc1", Services: map[string]*watch.Service{}}
	for name, addresses := range services {
		s := &watch.Service{Name: name}
		for i, address := range addresses {
			s.Instances = append(s.Instances, watch.Instance{
				ID: fmt.Sprint(name, i), Node: fmt.Sprintf("node-%d", i), Address: netip.MustParseAddrPort(address), Health: watch.HealthPassing,
			})
		}
		part.Services[name] = s
	}
	return &watch.Snapshot{Datacenter: "dc1", Parts: []*watch.Part{part}}
}

// An operator's template from before mi-lb renders, runs, and has its servers
// changed without a reload.
func TestStockHaproxyConsulTemplateRuns(t *testing.T) {
	consul := consultest.Start(t)
	consul.Put("service/haproxy/maxconn", "512")
	dir := haproxytest.Dir(t)
	socket := filepath.Join(dir, "s")
	port := haproxytest.FreePort(t)
	t.Setenv("HAPROXY_SOCKET", socket)
	t.Setenv("HAPROXY_PORT", fmt.Sprint(port))
	t.Setenv("HAPROXY_DOMAIN", "example.com")
	engine, err := templates.New(templates.Options{Dir: "testdata/haproxy-consul", Consul: &templates.Consul{Address: consul.Address}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { engine.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })

	renderer := New(engine)
	settings := Settings{Dir: dir}
	render := func(world *watch.Snapshot) (files Files) {
		t.Helper()
		limited, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := engine.Await(limited, func() error {
			var err error
			files, err = renderer.Render(ctx, &routing.Table{}, settings, world)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return files
	}
	one, two := instance(t, "one"), instance(t, "two")
	before := render(catalog(map[string][]string{"web": {one.Address.String()}, "empty": nil}))
	if !strings.Contains(string(before[ConfigFile]), "maxconn 512\n") {
		t.Errorf("the key is not used:\n%s", before[ConfigFile])
	}
	staged, err := Stage(dir, before)
	if err != nil {
		t.Fatal(err)
	}
	check, err := staged.CheckFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := haproxytest.Validate(t, check); err != nil {
		t.Fatalf("%v\n%s", err, before[ConfigFile])
	}
	if err := staged.Commit(); err != nil {
		t.Fatal(err)
	}
	p := haproxytest.Start(t, ConfigPath(dir), socket)
	answers := func(want string) {
		t.Helper()
		haproxytest.Until(t, want+" answers", func() error {
			if got := raw(t, loopback(port), "GET / HTTP/1.0\r\nHost: web.example.com\r\n\r\n"); !strings.Contains(got, "Instance: "+want) && !strings.Contains(got, "instance: "+want) {
				return fmt.Errorf("answered %q", got)
			}
			return nil
		})
	}
	answers("one")

	after := render(catalog(map[string][]string{"web": {one.Address.String(), two.Address.String()}, "empty": nil}))
	change := Compare(before, after)
	if change.Reload != "" || len(change.Servers) != 1 || change.Servers[0].Add == "" {
		t.Fatalf("an instance more is the change %+v", change)
	}
	name := change.Servers[0].Backend + "/" + change.Servers[0].Server
	p.Command("add server " + change.Servers[0].Add + "; enable server " + name)
	answers("two")

	if c := Compare(after, render(catalog(map[string][]string{"web": {one.Address.String()}, "new": nil, "empty": nil}))); c.Reload == "" {
		t.Errorf("a new service is the change %+v", c)
	}
	sections, err := Lint(after[ConfigFile])
	if err != nil || len(sections) != 5 {
		t.Errorf("%d sections are read: %v", len(sections), err)
	}
}
