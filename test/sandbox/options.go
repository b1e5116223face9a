package sandbox

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/marathon"
)

// Options of a sandbox. The zero value is dc1 and dc2 on loopback addresses and
// ports that nobody else uses.
type Options struct {
	// Binary is the mi-lb to run; see [Build]. Default bin/mi-lb of this module.
	Binary string
	// HAProxy is the haproxy to run. Default the one on PATH, or /usr/sbin/haproxy.
	HAProxy string
	// Domain under which the edges publish services. Default mi-lb.example.com.
	Domain string
	// Datacenters, of which the first is joined by the others. Default dc1 and dc2.
	Datacenters []Datacenter
	// ServicePorts are service ports that will be asked for and that therefore have
	// to be free on every edge's address.
	ServicePorts []int

	// Consul, Marathon and Edge, where set, change what is about to be started in
	// a datacenter; Edge gets the edge's configuration as its file will have it.
	Consul   func(datacenter string, options *consul.Options)
	Marathon func(datacenter string, options *marathon.Options)
	Edge     func(datacenter string, configuration map[string]any)
}

// Datacenter is where the parts of one datacenter listen.
type Datacenter struct {
	Name string
	// Address is an IPv4 loopback address of the datacenter's own. Everything in
	// it listens there: its tasks, its service ports and the ports below. Default
	// one that nobody else uses.
	Address netip.Addr
	// Ports of Marathon, of Consul's API, and of the edge. A 0 is replaced by a
	// free one.
	Marathon, Consul, HTTP, Admin int
}

// Usual are the addresses that people know: Marathon on 127.0.0.1:8080, the edge
// on 127.0.0.1:8000, and the same ports for dc2 on 127.0.2.1.
func Usual() []Datacenter {
	ports := Datacenter{Marathon: 8080, Consul: 8500, HTTP: 8000, Admin: 9090}
	dc1, dc2 := ports, ports
	dc1.Name, dc1.Address = "dc1", netip.AddrFrom4([4]byte{127, 0, 0, 1})
	dc2.Name, dc2.Address = "dc2", netip.AddrFrom4([4]byte{127, 0, 2, 1})
	return []Datacenter{dc1, dc2}
}

func (o Options) withDefaults() (Options, error) {
	o.Domain = cmp.Or(o.Domain, "mi-lb.example.com")
	if o.Binary == "" {
		root, err := moduleRoot()
		if err != nil {
			return o, err
		}
		o.Binary = root + "/bin/mi-lb"
	}
	if _, err := os.Stat(o.Binary); err != nil {
		return o, fmt.Errorf("find mi-lb: %w; run \"make build\"", err)
	}
	if o.HAProxy == "" {
		path, err := exec.LookPath("haproxy")
		if err != nil {
			// Not on everybody's PATH.
			if path, err = exec.LookPath("/usr/sbin/haproxy"); err != nil {
				return o, fmt.Errorf("find HAProxy: %w; on Debian: apt-get install haproxy", err)
			}
		}
		o.HAProxy = path
	}
	if len(o.Datacenters) == 0 {
		o.Datacenters = []Datacenter{{Name: "dc1"}, {Name: "dc2"}}
	}
	// Addresses that nobody else on this machine is likely to have; the datacenters
	// of one sandbox are neighbours, so that a person sees what belongs together.
	x, y := byte(110+rand.IntN(120)), byte(4*rand.IntN(20))
	o.Datacenters = slices.Clone(o.Datacenters)
	seen := map[string]bool{}
	for i := range o.Datacenters {
		dc := &o.Datacenters[i]
		if dc.Name == "" || seen[dc.Name] {
			return o, fmt.Errorf("datacenter %d needs a name of its own", i+1)
		}
		seen[dc.Name] = true
		if !dc.Address.IsValid() {
			dc.Address = netip.AddrFrom4([4]byte{127, x, y + byte(2*i), 1})
		}
		if !dc.Address.Is4() || !dc.Address.IsLoopback() {
			return o, fmt.Errorf("address %s of %s is not an IPv4 loopback address", dc.Address, dc.Name)
		}
		if slices.ContainsFunc(o.Datacenters[:i], func(other Datacenter) bool { return other.Address == dc.Address }) {
			return o, fmt.Errorf("address %s of %s is another datacenter's already; service ports need one each", dc.Address, dc.Name)
		}
	}
	return o, nil
}

// containerNetwork has the addresses of the datacenter's tasks that have their
// own: 127.0.100.0/24 for the datacenter on 127.0.0.1.
func (dc Datacenter) containerNetwork() netip.Prefix {
	a := dc.Address.As4()
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{127, a[1], a[2] + 100, 0}), 24)
}
