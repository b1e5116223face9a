package marathon

import (
	"errors"
	"net/netip"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// Decode is the part that one list of apps makes, with nothing known before: body
// is an answer of GET /v2/apps with embed=apps.tasks, and agents are the addresses
// of the hosts that it names. An error means that the body is no list of apps;
// what is wrong with single apps is in the part's findings.
func Decode(source watch.Source, datacenter string, body []byte, agents map[string]netip.Addr, now time.Time) (*watch.Part, error) {
	list := &listing{number: 1, agents: map[string]agentAddress{}}
	var err error
	if list.docs, list.nameless, list.findings, err = decodeApps(source.String(), body); err != nil {
		return nil, err
	}
	for _, d := range list.docs {
		for _, host := range d.hosts() {
			if addr := agents[host]; addr.IsValid() {
				list.agents[host] = agentAddress{addr: addr}
			} else {
				list.agents[host] = agentAddress{err: errors.New("no address is given for it")}
			}
		}
	}
	v := newView(source, datacenter, nil, Intervals{}.withDefaults().Linger)
	v.all(list, false, now)
	return v.part(), nil
}
