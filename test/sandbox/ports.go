package sandbox

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
)

// TakenError is an address that something else listens on.
type TakenError struct {
	// What would listen there, in words.
	What    string
	Address netip.AddrPort
	// Setting moves it: the name of a flag of cmd/sandbox.
	Setting string
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("port %d on %s, for %s, is taken; choose another with --%s=PORT, or make demo DEMO=--%s=PORT",
		e.Address.Port(), e.Address.Addr(), e.What, e.Setting, e.Setting)
}

// assign replaces ports that are 0 by free ones, and checks that the others are
// free. The error joins one [TakenError] for each that is not.
func (o *Options) assign() error {
	var taken []error
	claimed := map[netip.AddrPort]string{}
	claim := func(what, setting string, at netip.AddrPort) error {
		if other, twice := claimed[at]; twice {
			return fmt.Errorf("%s and %s both want %s; move one with --%s=PORT", other, what, at, setting)
		}
		claimed[at] = what
		if !free(at) {
			return &TakenError{What: what, Address: at, Setting: setting}
		}
		return nil
	}
	for i := range o.Datacenters {
		dc := &o.Datacenters[i]
		for _, part := range []struct {
			what, setting string
			port          *int
		}{
			{"Marathon", "marathon", &dc.Marathon}, {"Consul", "consul", &dc.Consul},
			{"the edge's HTTP", "http", &dc.HTTP}, {"the edge's admin interface", "admin", &dc.Admin},
		} {
			what, setting := part.what+" in "+dc.Name, dc.Name+"."+part.setting
			if *part.port < 0 || *part.port > 65535 {
				taken = append(taken, fmt.Errorf("--%s: there is no port %d", setting, *part.port))
				continue
			}
			if *part.port != 0 {
				taken = append(taken, claim(what, setting, netip.AddrPortFrom(dc.Address, uint16(*part.port))))
				continue
			}
			for range 200 {
				// Below the range from which the kernel takes the ports of outgoing
				// connections, and below those of tasks.
				*part.port = 20000 + rand.IntN(11000)
				if claim(what, setting, netip.AddrPortFrom(dc.Address, uint16(*part.port))) == nil {
					break
				}
			}
		}
		for _, port := range o.ServicePorts {
			if port < 1 || port > 65535 {
				taken = append(taken, fmt.Errorf("--service-port: there is no port %d", port))
				continue
			}
			taken = append(taken, claim("the try-out's service port in "+dc.Name, "service-port", netip.AddrPortFrom(dc.Address, uint16(port))))
		}
	}
	return errors.Join(taken...)
}

// free says whether the port can be listened on. What people reach as localhost
// must be free for IPv6 too, which comes first there.
func free(at netip.AddrPort) bool {
	addresses := []netip.AddrPort{at}
	if at.Addr() == netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		addresses = append(addresses, netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()))
	}
	for _, address := range addresses {
		listener, err := net.Listen("tcp", address.String())
		if err == nil {
			listener.Close()
			continue
		}
		// A machine without IPv6 has another reason.
		if address == at || errors.Is(err, syscall.EADDRINUSE) {
			return false
		}
	}
	return true
}
