package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	haproxyruntime "github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/test/edge"
	"github.com/mi-lb/mi-lb/watch"
)

// compare fails the soak if the edge does not come to do what an edge does that is
// started now, with nothing it remembers.
func (s *soak) compare() {
	fresh := edge.Start(s.t, s.edgeOptions(s.binary, "127.0.0.2"))
	s.wait("the edge the same as a fresh one", func() error {
		for _, source := range slices.Concat(s.edge.Sources(), fresh.Sources()) {
			if source.Status != watch.Current {
				return fmt.Errorf("%s is %s: %s", source.Source, source.Status, source.LastError)
			}
		}
		if diff := cmp.Diff(table(fresh), table(s.edge)); diff != "" {
			return errors.New("tables differ (- fresh, + after the soak):\n" + diff)
		}
		freshRuns, err := s.runs(fresh)
		if err != nil {
			return err
		}
		running, err := s.runs(s.edge)
		if err != nil {
			return err
		}
		if diff := cmp.Diff(freshRuns, running); diff != "" {
			return errors.New("HAProxy runs something else (- fresh, + after the soak):\n" + diff)
		}
		return nil
	})
	for _, p := range s.edge.Routes().Ports {
		if p.Number == s.tcpPort {
			continue // the sessions use it
		}
		s.edge.WaitPort(p.Number)
	}
	s.t.Logf("HAProxy runs what a fresh start would run: %d ways to %d servers", len(s.edge.Routes().Routes), s.edge.Status().Servers)
	fresh.Stop()
}

// comparing is how long the edge may take: what it doubts is held until that is
// confirmed, then drained.
const comparing = 2 * time.Minute

func (s *soak) wait(what string, holds func() error) {
	s.t.Helper()
	begin := time.Now()
	for {
		err := holds()
		if err == nil || s.ctx.Err() != nil {
			return
		}
		if time.Since(begin) > comparing {
			s.t.Fatalf("not seen in %s: %s; last: %v", comparing, what, err)
		}
		time.Sleep(250 * time.Millisecond)
	}
}

// table of an edge in comparable words.
func table(e *edge.Edge) []string {
	routes := e.Routes()
	var lines []string
	for _, p := range routes.Ports {
		lines = append(lines, fmt.Sprintf("port %d %s %s", p.Number, p.Protocol, p.Backend))
	}
	for _, r := range routes.Routes {
		lines = append(lines, fmt.Sprintf("route %s %s%s %s", r.Kind, r.Host, r.Path, r.Backend))
	}
	for _, b := range routes.Backends {
		lines = append(lines, fmt.Sprintf("backend %s %s %s %+v %+v", b.ID, b.Protocol, b.Balance, b.Check, b.Timeouts))
		for _, s := range b.Servers {
			lines = append(lines, fmt.Sprintf("server %s %s %s %s %d %t", b.ID, s.Name, s.Address, s.State, s.Weight, s.Backup))
		}
	}
	return lines
}

// runs are the ways through HAProxy: for each row of its maps the servers that it leads
// to, with their states and weights. Backends have other names after a fresh start
// where a spare one serves, and what is in maintenance serves nobody.
func (s *soak) runs(e *edge.Edge) (map[string][]string, error) {
	servers, err := e.Runtime().Servers(s.ctx)
	if err != nil {
		return nil, fmt.Errorf("ask HAProxy for its servers: %w", err)
	}
	of := map[string][]string{}
	for _, server := range servers {
		if server.State != haproxyruntime.Maint {
			of[server.Backend] = append(of[server.Backend], fmt.Sprintf("%s %s weight %d", server.Address, server.State, server.Weight))
		}
	}
	ways := map[string][]string{}
	maps, err := e.Runtime().Maps(s.ctx)
	if err != nil {
		return nil, fmt.Errorf("ask HAProxy for its maps: %w", err)
	}
	for _, m := range maps {
		if !strings.HasSuffix(m.File, ".map") {
			continue
		}
		entries, err := e.Runtime().MapEntries(s.ctx, m.File)
		if err != nil {
			return nil, fmt.Errorf("ask HAProxy for a map: %w", err)
		}
		for _, entry := range entries {
			to := slices.Sorted(slices.Values(of[entry.Value]))
			ways[filepath.Base(m.File)+" "+entry.Key] = slices.Compact(to)
		}
	}
	return ways, nil
}
