package mesosmaster

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/internal/mesos"
	"github.com/mi-lb/mi-lb/provision/component/vars"
)

// change is how the masters of a datacenter differ from those that are there.
type change struct {
	// wanted is the quorum that the inventory asks for.
	wanted int
	// there are the quorums of masters that were found configured, by node.
	there map[string]int
}

// look reads the quorums that were found.
func look(p component.Platform, d *cluster.Datacenter) change {
	c := change{wanted: d.Quorum(cluster.MesosMaster), there: map[string]int{}}
	for _, n := range d.With(cluster.MesosMaster) {
		values, ok := mesos.File(p, n.Name, environmentFile)
		if !ok {
			continue
		}
		if q, err := strconv.Atoi(values["MESOS_QUORUM"]); err == nil {
			c.there[n.Name] = q
		}
	}
	return c
}

// now is the quorum that masters run with; 0 if there are none yet. While they
// differ, as in a run that was cut off, it is the smallest.
func (c change) now() int {
	now := 0
	for _, q := range c.there {
		if now == 0 || q < now {
			now = q
		}
	}
	return now
}

// needed is the quorum that masters need until they are restarted: the one they run
// with, if there are any.
func (c change) needed() int {
	if now := c.now(); now > 0 {
		return now
	}
	return c.wanted
}

// losesRegistry: one master's log cannot be read by a quorum of several.
func (c change) losesRegistry() bool { return c.now() == 1 && c.wanted > 1 }

// grows is a quorum that becomes larger, with a registry that is kept.
func (c change) grows() bool { return c.now() > 1 && c.wanted > c.now() }

// waits says whether a master must not start yet: a new one, while those that are
// there still have the smaller quorum and could decide without it.
func (c change) waits(n *cluster.Node) bool {
	_, there := c.there[n.Name]
	return c.grows() && !there
}

// Check says what of a change of the quorum cannot be done, or not at once.
func (master) Check(p component.Platform, n *cluster.Node) []component.Problem {
	d, ok := p.Cluster.Datacenter(n.Datacenter)
	if !ok {
		return nil
	}
	c := look(p, d)
	masters := d.With(cluster.MesosMaster)
	problem := component.Problem{Node: n.Name, Component: name, Code: "mesos-quorum"}
	switch {
	case c.losesRegistry() && !vars.For(name, n).Bool("mesos_accept_registry_loss", false):
		if n.Name != masters[0].Name {
			return nil // said once
		}
		problem.Fatal = true
		problem.Message = fmt.Sprintf("%s has one Mesos master and is to have %d: its registry cannot be carried over, as a single log is no quorum of %d", d.Name, len(masters), c.wanted)
		problem.Advice = "to start with an empty registry, which agents fill again, run with -e mesos_accept_registry_loss=yes; else leave the one master"
	case c.waits(n):
		problem.Message = fmt.Sprintf("the masters of %s go from a quorum of %d to %d: those that are there first, %s later", d.Name, c.now(), c.wanted, n.Name)
		problem.Advice = "run mi-lb bootstrap again when this run is done; then " + n.Name + " starts"
	case c.now() > c.wanted && n.Name == masters[0].Name:
		problem.Message = fmt.Sprintf("the masters of %s go from a quorum of %d to %d; the registry is damaged if more than %d masters run after that", d.Name, c.now(), c.wanted, 2*c.wanted-1)
		problem.Advice = "stop mesos-master.service on the machines that are no masters any more first: systemctl disable --now mesos-master; the run stops before the first restart if one is left"
	default:
		return nil
	}
	return []component.Problem{problem}
}

// tooMany says what is wrong with an ensemble of that many masters.
func tooMany(d *cluster.Datacenter, ensemble float64) error {
	wanted := d.Quorum(cluster.MesosMaster)
	if most := 2*wanted - 1; int(ensemble) > most {
		var names []string
		for _, n := range d.With(cluster.MesosMaster) {
			names = append(names, n.Name)
		}
		return fmt.Errorf("%s: %d Mesos masters run, and a quorum of %d allows %d: stop mesos-master on all machines but %s first",
			d.Name, int(ensemble), wanted, most, strings.Join(names, ", "))
	}
	return nil
}
