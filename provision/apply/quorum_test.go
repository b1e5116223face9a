package apply

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
	"github.com/mi-lb/mi-lb/provision/survey"
)

// council is a rolling thing whose members are healthy only all together. One that
// runs with a bad file takes no part.
type council struct {
	rolling
	unsaved error // why its state cannot be saved
}

func (c council) Save(_ context.Context, _ component.Platform, d *cluster.Datacenter, _ component.Access, w io.Writer) error {
	if c.unsaved != nil {
		return c.unsaved
	}
	_, err := io.WriteString(w, "the state of "+d.Name)
	return err
}

func (c council) Quorum(ctx context.Context, _ component.Platform, d *cluster.Datacenter, a component.Access) (component.Quorum, error) {
	var q component.Quorum
	for _, n := range d.Nodes {
		if !c.On(n) {
			continue
		}
		host, err := a.Host(n.Name)
		if err != nil {
			return q, err
		}
		if _, err := host.Run(ctx, ssh.Command{Line: fmt.Sprintf("systemctl is-active --quiet %s && ! grep -q bad /run/%s", c.unit(), c.name)}); err == nil {
			q.Serving = append(q.Serving, n.Name)
		}
	}
	if len(q.Serving) == 0 {
		q.Lost = "nobody leads"
	}
	return q, nil
}

func (c council) Healthy(ctx context.Context, p component.Platform, n *cluster.Node, a component.Access) error {
	d, _ := p.Cluster.Datacenter(n.Datacenter)
	q, err := c.Quorum(ctx, p, d, a)
	if err != nil {
		return err
	}
	for _, other := range d.Nodes {
		if c.On(other) && !slices.Contains(q.Serving, other.Name) {
			return fmt.Errorf("%s is missing", other.Name)
		}
	}
	return c.thing.Healthy(ctx, p, n, a)
}

// spoil has machines run the thing with a bad file.
func (s *site) spoil(machines ...string) {
	s.t.Helper()
	for _, m := range machines {
		s.on(m, "echo bad >/etc/thing/conf && systemctl restart thing.service")
	}
}

// begun are the machines on which units were restarted or started, in that order.
func (s *site) begun(datacenter string) []string {
	var all []string
	for _, e := range s.events {
		if e.Datacenter == datacenter && (strings.HasPrefix(e.Step, "restarts ") || strings.HasPrefix(e.Step, "starts ")) {
			all = append(all, e.Node)
		}
	}
	return all
}

// said says whether something was reported of a datacenter as a whole.
func (s *site) said(datacenter, step string) bool {
	return slices.ContainsFunc(s.events, func(e Event) bool {
		return e.Datacenter == datacenter && e.Node == "" && strings.Contains(e.Step, step)
	})
}

func lostQuorum(t *testing.T, s *site) {
	c := council{rolling: rolling{&thing{name: "thing", change: content("lost\n")}}}
	s.spoil("a1", "a2", "a3")
	found, _ := s.survey(c)
	p, err := found.Plan(t.Context(), survey.Scope{}, func(s string) string { return s })
	if err != nil {
		t.Fatal(err)
	}
	contains(t, p.Text(plan.TextOptions{}), "in dc1 all at once: a3, a2, a1, as there is no quorum to protect: nobody leads")
	kept := map[string]string{}
	o := s.run(func(o *Options) { o.Patience, o.Keep = 10*time.Second, keep(kept) }, c)
	if !s.said("dc1", "there is no state to save: nobody leads") || !maps.Equal(kept, map[string]string{"thing dc2": "the state of dc2"}) || !slices.Equal(o.Kept, []string{"kept thing dc2"}) {
		t.Errorf("kept: %v, %v", kept, o.Kept)
	}
	if len(o.Failures)+len(o.Left) > 0 || o.Restarts != 4 || !slices.Equal(c.restarts, []string{"b1"}) {
		t.Errorf("%+v, asked before the restart of %v", o, c.restarts)
	}
	for _, datacenter := range []string{"dc1", "dc2"} {
		if s.said(datacenter, "no quorum to protect, so all members change at once: nobody leads") != (datacenter == "dc1") {
			t.Errorf("it is said of the wrong datacenter: %v", s.events)
		}
	}
}

// keep stores in a map.
func keep(all map[string]string) func(string, string, func(io.Writer) error) (string, error) {
	var mu sync.Mutex
	return func(component, datacenter string, write func(io.Writer) error) (string, error) {
		var b strings.Builder
		if err := write(&b); err != nil {
			return "", err
		}
		mu.Lock()
		defer mu.Unlock()
		all[component+" "+datacenter] = b.String()
		return "kept " + component + " " + datacenter, nil
	}
}

func unsaved(t *testing.T, s *site) {
	c := council{rolling: rolling{&thing{name: "thing", change: content("saved\n")}}, unsaved: errors.New("it has no words")}
	kept := map[string]string{}
	options := func(o *Options) { o.Patience, o.Keep = 3*time.Second, keep(kept) }
	o := s.run(options, c)
	contains(t, s.failure(o, ""), "its state could not be saved before it is changed: it has no words")
	if o.Restarts != 0 || len(c.restarts) != 0 || len(o.Left) != 2 {
		t.Errorf("%+v %v", o, c.restarts)
	}
	c.unsaved = nil
	if o := s.run(options, c); len(o.Failures)+len(o.Left) > 0 || o.Restarts != 4 || len(kept) != 2 {
		t.Errorf("%+v, kept %v", o, kept)
	}
	// Nothing to change, nothing to save.
	clear(kept)
	if o := s.run(options, c); o.Changes != 0 || len(kept) != 0 {
		t.Errorf("%+v, kept %v", o, kept)
	}
}

func idleFirst(t *testing.T, s *site) {
	c := council{rolling: rolling{&thing{name: "thing", change: content("4\n")}}}
	s.spoil("a1")
	s.on("a2", "systemctl stop thing.service")
	o := s.run(func(o *Options) { o.Patience = 10 * time.Second }, c)
	if len(o.Failures)+len(o.Left) > 0 || !slices.Equal(slices.DeleteFunc(c.restarts, func(n string) bool { return n == "b1" }), []string{"a3"}) || len(c.overlaps) > 0 {
		t.Errorf("%+v, asked before the restart of %v; %v", o, c.restarts, c.overlaps)
	}
	begun := s.begun("dc1")
	if len(begun) != 3 || begun[2] != "a3" || !s.said("dc1", "not in the quorum, and changed before those that are: a2, a1") {
		t.Errorf("begun: %v", begun)
	}
}

func growth(t *testing.T, s *site) {
	c := council{rolling: rolling{&thing{name: "grown", absent: []string{"a2", "a3"}}}}
	s.must(c)
	c.absent, c.change = nil, content("2\n")
	s.must(c)
	if begun := s.begun("dc1"); len(begun) != 3 || begun[2] != "a1" {
		t.Errorf("begun: %v", begun)
	}
}
