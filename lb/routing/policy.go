package routing

import (
	"slices"

	"github.com/mi-lb/mi-lb/watch"
)

// Exposure says which services are published without asking.
type Exposure string

const (
	// ExposeAll publishes every service that is not infrastructure.
	ExposeAll Exposure = "all"
	// ExposeTagged publishes only services with mi-lb.enable=true.
	ExposeTagged Exposure = "tagged"
)

// Locality says how instances of other datacenters are used.
type Locality string

const (
	// LocalFirst uses them when no local one can serve, the nearest datacenter first.
	LocalFirst Locality = "local-first"
	// Global uses all alike.
	Global Locality = "global"
	// LocalOnly never uses them.
	LocalOnly Locality = "local-only"
)

// Policy is what the operator has decided. It is immutable.
type Policy struct {
	// Domain under which services are published by name; "" for none.
	Domain string
	// ConsulDomain is Consul's own ("consul"), for its DNS names; "" for none.
	ConsulDomain string
	Exposure     Exposure
	// Locality and Balance of services that do not say.
	Locality Locality
	Balance  string
	// Groups that this edge serves, by source; a source without a name stands for
	// all of its kind that are not there themselves. One that has none serves all,
	// and so does "*" in a list.
	Groups map[watch.Source][]string
	// Reserved ports cannot be taken by a service; the value says what has them:
	// "listen.http".
	Reserved map[int]string
	// Passthrough says whether there is a listener for routes by server name.
	Passthrough bool
}

func (p Policy) serves(source watch.Source, asked []string) bool {
	served := p.groups(source)
	if len(served) == 0 || slices.Contains(served, "*") {
		return true
	}
	return slices.ContainsFunc(asked, func(group string) bool { return slices.Contains(served, group) })
}

func (p Policy) groups(source watch.Source) []string {
	if groups, ok := p.Groups[source]; ok {
		return groups
	}
	return p.Groups[watch.Source{Kind: source.Kind}]
}

// infrastructure are the services that the platform itself is made of. They are
// published only if they ask, because a name in a catalog is not a wish to be on
// the internet: the original platform put ZooKeeper there.
var infrastructure = []string{
	"consul", "mesos", "marathon", "zookeeper", "docker", "registrator", "nomad", "vault", "mi-lb",
}

// infrastructureParts are the suffixes that the platform's own names have: roles,
// and the ports that Registrator appends.
var infrastructureParts = []string{
	"agent", "api", "client", "dns", "follower", "http", "https", "leader", "master", "rpc",
	"serf", "server", "slave", "ui",
}
