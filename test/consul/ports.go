package consul

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports an agent listens on. A 0 is replaced by a free one when the agent
// starts; -1 turns the listener off.
type Ports struct {
	HTTP    int
	HTTPS   int // only with Options.TLS
	DNS     int // off unless set
	Server  int
	SerfLAN int
	SerfWAN int
}

// handed are the ports given out or asked for in this process, so that nothing that
// starts at once gets the same one.
var handed sync.Map

// freePort is one that nobody listens on, over TCP and UDP, on the address. It
// lies below the range from which the kernel takes the ports of outgoing
// connections: an agent that is down for a moment finds it free again.
func freePort(address string) (int, error) {
	for range 200 {
		port := 20000 + rand.IntN(12000)
		if _, taken := handed.LoadOrStore(port, true); taken {
			continue
		}
		hostPort := net.JoinHostPort(address, strconv.Itoa(port))
		tcp, err := net.Listen("tcp", hostPort)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", hostPort)
		tcp.Close()
		if err != nil {
			continue
		}
		udp.Close()
		return port, nil
	}
	return 0, fmt.Errorf("find a free port on %s: none in 200 tries", address)
}

func (p Ports) withFree(address string, tls bool) (Ports, error) {
	wanted := []*int{&p.HTTP, &p.Server, &p.SerfLAN, &p.SerfWAN}
	if tls {
		wanted = append(wanted, &p.HTTPS)
	} else {
		p.HTTPS = -1
	}
	if p.DNS == 0 {
		p.DNS = -1
	}
	for _, port := range append(wanted, &p.DNS) {
		if *port > 0 {
			handed.Store(*port, true) // asked for: not to be chosen for another
		}
	}
	for _, port := range wanted {
		if *port != 0 {
			continue
		}
		free, err := freePort(address)
		if err != nil {
			return p, err
		}
		*port = free
	}
	return p, nil
}
