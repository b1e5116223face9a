package bootstrap

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// quorums are the units of members of which one at a time may restart, by component.
var quorums = map[string]string{
	"zookeeper": "zookeeper.service", "consul-server": "consul.service", "mesos-master": "mesos-master.service", "marathon": "marathon.service",
}

func (p *platform) journalSize(t *testing.T) int {
	t.Helper()
	data, err := os.ReadFile(p.state("journal"))
	if err != nil {
		t.Fatal(err)
	}
	return len(data)
}

// oneAtATime reads what runs have written to the journal since it had that size: no
// member of a quorum may have been restarted before the one before it was healthy.
func (p *platform) oneAtATime(t *testing.T, since int) {
	t.Helper()
	data, err := os.ReadFile(p.state("journal"))
	if err != nil {
		t.Fatal(err)
	}
	turn := map[string]string{} // whose it is, by component and datacenter
	for line := range strings.Lines(string(data[since:])) {
		var entry struct {
			Event *struct{ Component, Datacenter, Node, State, Step string }
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("the journal: %v: %s", err, line)
		}
		e := entry.Event
		if e == nil || e.Node == "" || quorums[e.Component] == "" {
			continue
		}
		where := e.Component + " of " + e.Datacenter
		switch {
		case strings.HasPrefix(e.Step, "restarts "):
			if other := turn[where]; other != "" {
				t.Errorf("%s: %s was restarted before %s was healthy", where, e.Node, other)
			}
			turn[where] = e.Node
		case e.State == "done" && turn[where] == e.Node:
			turn[where] = ""
		}
	}
	for where, node := range turn {
		if node != "" {
			t.Errorf("%s: %s was restarted, and did not become healthy", where, node)
		}
	}
}

// apart asks systemd when units ("machine unit") that were restarted were down: never
// two members of a quorum at a time. All machines have one kernel, and so one clock.
func (p *platform) apart(t *testing.T, restarted []string) {
	t.Helper()
	type interval struct {
		machine  string
		from, to int
	}
	down := map[string][]interval{}
	for _, name := range restarted {
		machine, unit, _ := strings.Cut(name, " ")
		datacenter, role, _ := strings.Cut(machine, "-")
		if !strings.HasPrefix(role, "control") || !slices.Contains(slices.Collect(maps.Values(quorums)), unit) {
			continue
		}
		text, err := p.hosts.Machine(machine).Run(context.Background(), "systemctl show -p ActiveExitTimestampMonotonic,ActiveEnterTimestampMonotonic "+unit)
		if err != nil {
			t.Fatal(err)
		}
		at := map[string]int{}
		for line := range strings.Lines(text) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			if at[key], err = strconv.Atoi(value); err != nil {
				t.Fatalf("%s: %q", name, text)
			}
		}
		where := fmt.Sprintf("%s of %s", unit, datacenter)
		down[where] = append(down[where], interval{machine, at["ActiveExitTimestampMonotonic"], at["ActiveEnterTimestampMonotonic"]})
	}
	for where, all := range down {
		slices.SortFunc(all, func(a, b interval) int { return a.from - b.from })
		for i, x := range all {
			if x.to <= x.from || i > 0 && x.from < all[i-1].to {
				t.Errorf("%s: members were down at the same time: %+v", where, all)
				break
			}
		}
		t.Logf("%s: %d members restarted one after the other", where, len(all))
	}
}
