package consul

import (
	"slices"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// distances gives the datacenters, in the order they come in, the median
// round-trip time between the servers of the local one and theirs; 0 where
// there are no coordinates for it.
func distances(names []string, local string, maps []*api.CoordinateDatacenterMap) []watch.Datacenter {
	type point struct {
		area  string
		entry api.CoordinateEntry
	}
	points := map[string][]point{}
	for _, m := range maps {
		if m == nil {
			continue
		}
		for _, c := range m.Coordinates {
			if c.Coord != nil && c.Coord.IsValid() {
				points[m.Datacenter] = append(points[m.Datacenter], point{m.AreaID, c})
			}
		}
	}
	datacenters := make([]watch.Datacenter, 0, len(names))
	for _, name := range names {
		var all []time.Duration
		for _, a := range points[local] {
			for _, b := range points[name] {
				if name != local && a.area == b.area && a.entry.Coord.IsCompatibleWith(b.entry.Coord) {
					all = append(all, a.entry.Coord.DistanceTo(b.entry.Coord))
				}
			}
		}
		datacenter := watch.Datacenter{Name: name}
		if len(all) > 0 {
			slices.Sort(all)
			datacenter.RTT = max(0, all[len(all)/2])
		}
		datacenters = append(datacenters, datacenter)
	}
	return datacenters
}

// sameDistances says whether the difference is noise: the same datacenters in
// the same order, and no round-trip time changed by more than a quarter and a
// millisecond.
func sameDistances(a, b []watch.Datacenter) bool {
	return slices.EqualFunc(a, b, func(x, y watch.Datacenter) bool {
		change := max(x.RTT-y.RTT, y.RTT-x.RTT)
		return x.Name == y.Name && (x.RTT == 0) == (y.RTT == 0) && (change <= time.Millisecond || change <= max(x.RTT, y.RTT)/4)
	})
}
