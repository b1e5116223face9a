package haproxy

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/watch"
)

// block takes ports that another program has out of the plan: HAProxy would not come
// up with them.
func (l *loop) block(p *plan.Plan) {
	p.Reload = slices.DeleteFunc(p.Reload, func(r plan.Reason) bool {
		if r.Word != plan.PortOpened {
			return false
		}
		number, err := strconv.Atoi(r.Detail)
		if err != nil {
			return false
		}
		return !l.bindable(number)
	})
}

func (l *loop) bindable(number int) bool {
	address, err := netip.ParseAddr(l.o.Settings.ServicePortAddress)
	if err != nil {
		return true // validated before; HAProxy has the last word
	}
	err = process.Bindable(l.ctx, netip.AddrPortFrom(address, uint16(number)))
	if err == nil {
		return true
	}
	service := ""
	for _, port := range l.want.Table.Ports {
		if port.Number == number {
			service = port.Service
		}
	}
	l.blockPort(number, service, err)
	return false
}

func (l *loop) blockPort(number int, service string, err error) {
	if _, known := l.blocked[number]; !known {
		l.log.Warn("a service port cannot be opened", "port", number, "service", service, "error", err)
		l.record(Event{Kind: "refused", Detail: fmt.Sprintf("port %d of service %s", number, watch.Printable(service)), Error: err.Error()})
	}
	l.blocked[number] = blockedPort{service, err}
	l.want = l.want.without(nil, map[int]bool{number: true})
	l.later()
}
