package component

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
)

// Address is where the other nodes of its datacenter reach a node: what the
// inventory says, else the IPv4 address of the interface that it names, else the
// only one that the machine was found to have. Bridges of containers and loopback
// do not count. The error says what to set in the inventory.
func (p Platform) Address(n *cluster.Node) (netip.Addr, error) {
	if n.Address.IsValid() {
		return n.Address, nil
	}
	found := p.Facts[n.Name]
	if found == nil {
		return netip.Addr{}, fmt.Errorf("the address of %s is not known: it has no private_ipv4, and the machine was not reached", n.Name)
	}
	var all []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(found.Addresses)) {
		if n.Interface != "" && name != n.Interface || n.Interface == "" && isBridge(name) {
			continue
		}
		for _, prefix := range found.Addresses[name] {
			a := prefix.Addr().Unmap()
			if a.Is4() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
				all = append(all, a)
			}
		}
	}
	switch {
	case len(all) == 1, len(all) > 1 && n.Interface != "":
		return all[0], nil
	case len(all) == 0 && n.Interface != "":
		return netip.Addr{}, fmt.Errorf("the interface %s of %s (private_interface) has no IPv4 address", n.Interface, n.Name)
	case len(all) == 0:
		return netip.Addr{}, fmt.Errorf("%s has no IPv4 address that others could reach; set private_ipv4", n.Name)
	}
	return netip.Addr{}, fmt.Errorf("%s has several addresses, %v; set private_ipv4 or private_interface", n.Name, all)
}

func isBridge(name string) bool {
	for _, prefix := range []string{"lo", "docker", "br-", "veth", "virbr", "cni", "flannel", "cali"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
