package registrator

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
)

// HostAddress is the address that this host is reached at by others, as far as
// it can be told: what its name resolves to or, where that is a loopback address
// (as on Debian), the one that its packets leave from.
func HostAddress(name string) (netip.Addr, error) {
	resolved, err := net.ResolveIPAddr("ip", name)
	if err == nil {
		if ip, ok := netip.AddrFromSlice(resolved.IP); ok && !ip.Unmap().IsLoopback() && !ip.IsUnspecified() {
			return ip.Unmap(), nil
		}
		err = fmt.Errorf("%s resolves to %s", name, resolved)
	}
	// No packet is sent: this only asks for the route. The address is one for
	// documentation, in no network anybody has.
	conn, dialErr := net.Dial("udp4", "203.0.113.1:9")
	if dialErr != nil {
		return netip.Addr{}, errors.Join(err, dialErr)
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
