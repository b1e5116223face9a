package survey

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/platform"
	"github.com/mi-lb/mi-lb/provision/preflight"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// stateless is a component that is not asked for what it keeps itself, which would
// take machines.
type stateless struct{ component.Component }

func (s stateless) Check(p component.Platform, n *cluster.Node) []component.Problem {
	if c, ok := s.Component.(component.Checker); ok {
		return c.Check(p, n)
	}
	return nil
}

// wide is an inventory of two datacenters with so many machines together.
func wide(hosts int) string {
	var list strings.Builder
	groups := map[string]*strings.Builder{}
	add := func(group, name string) {
		if groups[group] == nil {
			groups[group] = &strings.Builder{}
			fmt.Fprintf(groups[group], "[%s]\n", group)
		}
		fmt.Fprintln(groups[group], name)
	}
	for i := range hosts {
		d, at := 1+i%2, i/2
		role := "worker"
		switch {
		case at < 5:
			role = "control"
		case at < 8:
			role = "edge"
		}
		name := fmt.Sprintf("dc%d-%s-%03d", d, role, at)
		fmt.Fprintf(&list, "%s ansible_host=10.%d.%d.%d\n", name, d, at/250, 1+at%250)
		add(fmt.Sprintf("dc=dc%d", d), name)
		add("role="+role, name)
	}
	for _, group := range groups {
		list.WriteString(group.String())
	}
	return list.String() + "[all:vars]\ndomain=apps.test\nconsul_file=/bin/sh\nmesos_file=/bin/sh\nmarathon_file=/bin/sh\n"
}

// BenchmarkPlan is what planning costs this machine, without what machines are asked.
func BenchmarkPlan(b *testing.B) {
	for _, hosts := range []int{100, 500} {
		p := componenttest.Platform(b, wide(hosts))
		o := Options{Cluster: p.Cluster, Program: "/bin/sh", Secrets: func(*cluster.Cluster) (*secrets.Bundle, error) { return p.Secrets, nil }}
		for _, c := range platform.Components() {
			o.Components = append(o.Components, stateless{c})
		}
		steps := func(name string, step func(b *testing.B)) { b.Run(fmt.Sprintf("%d hosts/%s", hosts, name), step) }
		steps("secrets", func(b *testing.B) {
			for b.Loop() {
				if _, err := secrets.New().Ensure(p.Cluster, time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
		steps("questions", func(b *testing.B) {
			for b.Loop() {
				g, err := newGuess(o)
				if err != nil {
					b.Fatal(err)
				}
				for _, n := range p.Cluster.Nodes() {
					g.ask(n)
				}
			}
		})
		s := &Survey{
			options: o, files: &files{}, cluster: p.Cluster, bundle: p.Secrets, facts: p.Facts, asks: map[string]facts.Ask{},
			parts: map[string][]*desired.Part{}, problems: map[string][]component.Problem{},
		}
		steps("wanted", func(b *testing.B) {
			for b.Loop() {
				for _, n := range p.Cluster.Nodes() {
					s.parts[n.Name], s.problems[n.Name] = s.desired(n)
				}
			}
		})
		for _, n := range p.Cluster.Nodes() {
			s.parts[n.Name], s.problems[n.Name] = s.desired(n)
		}
		var made *plan.Plan
		steps("differences", func(b *testing.B) {
			for b.Loop() {
				var err error
				if made, err = s.Plan(b.Context(), Scope{}, func(text string) string { return text }); err != nil {
					b.Fatal(err)
				}
			}
		})
		steps("preflight", func(b *testing.B) {
			for b.Loop() {
				made.Problems = preflight.Once(append(made.Problems, preflight.Check(p, s.parts)...))
			}
		})
		steps("text", func(b *testing.B) {
			for b.Loop() {
				made.Text(plan.TextOptions{})
			}
		})
		steps("json", func(b *testing.B) {
			for b.Loop() {
				if _, err := json.Marshal(made); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
