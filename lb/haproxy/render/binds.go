package render

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
)

// Binds are the addresses of TCP that the configuration binds, in no order. Those that
// depend on the environment or on the system (an interface, a name), and sockets of
// other kinds, are not among them.
func Binds(files Files) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		for _, s := range split(files[ConfigFile]) {
			for _, line := range s.lines {
				words, err := encode.Words(line)
				if err != nil || len(words) < 2 || words[0] != "bind" {
					continue
				}
				for address := range strings.SplitSeq(words[1], ",") {
					for a := range bound(address) {
						if !yield(a) {
							return
						}
					}
				}
			}
		}
	}
}

// bound are the addresses of one word: "10.0.0.1:80", ":80-90", "ipv6@[::]:80".
func bound(address string) iter.Seq[netip.AddrPort] {
	return func(yield func(netip.AddrPort) bool) {
		if family, rest, found := strings.Cut(address, "@"); found {
			if !slices.Contains([]string{"ipv4", "ipv6", "tcp", "tcp4", "tcp6"}, family) {
				return
			}
			address = rest
		}
		i := strings.LastIndexByte(address, ':')
		if i < 0 {
			return
		}
		host := strings.TrimSuffix(strings.TrimPrefix(address[:i], "["), "]")
		if host == "" || host == "*" {
			host = "0.0.0.0"
		}
		ip, err := netip.ParseAddr(host)
		if err != nil {
			return
		}
		from, to, found := strings.Cut(address[i+1:], "-")
		if !found {
			to = from
		}
		first, err1 := strconv.ParseUint(from, 10, 16)
		last, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || first == 0 {
			return
		}
		for port := first; port <= last; port++ {
			if !yield(netip.AddrPortFrom(ip, uint16(port))) {
				return
			}
		}
	}
}
