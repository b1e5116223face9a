package haproxy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/routing"
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
	service, _ := l.servicePort(number)
	l.blockPort(number, service, err)
	return false
}

func (l *loop) blockPort(number int, service string, err error) {
	if _, known := l.blocked[number]; !known {
		l.log.Warn("a service port cannot be opened", "port", number, "service", service, "error", err)
		l.record(Event{Kind: "refused", Detail: fmt.Sprintf("port %d of service %s", number, watch.Printable(service)), Error: err.Error()})
	}
	l.blocked[number] = blockedPort{service, err}
	l.want = l.blocking(l.want.without(nil, map[int]bool{number: true}))
	l.later()
}

// errBusy is a reload that is not tried because of service ports that have just turned
// out to be another program's.
var errBusy = errors.New("another program has service ports")

// free makes sure that HAProxy can have every address that the files bind and those in
// force do not. The error wraps errBusy if it is only service ports that it cannot.
func (l *loop) free(files render.Files) error {
	bound := map[netip.AddrPort]bool{}
	for a := range render.Binds(l.files) {
		bound[a] = true
	}
	var others []error
	busy := false
	for a := range render.Binds(files) {
		if bound[a] {
			continue
		}
		err := process.Bindable(l.ctx, a)
		if !errors.Is(err, unix.EADDRINUSE) {
			continue // who may bind what is for HAProxy to find out
		}
		if service, ours := l.servicePort(int(a.Port())); ours {
			l.blockPort(int(a.Port()), service, err)
			busy = true
		} else {
			others = append(others, fmt.Errorf("listener %s: %w", a, err))
		}
	}
	if busy && len(others) == 0 {
		return errBusy
	}
	return errors.Join(others...)
}

// servicePort is the service that wants the port, and whether it is one for services.
func (l *loop) servicePort(number int) (service string, ours bool) {
	i := slices.IndexFunc(l.want.Table.Ports, func(p routing.Port) bool { return p.Number == number })
	if i >= 0 {
		return l.want.Table.Ports[i].Service, true
	}
	return "", l.o.Settings.ServicePortRange.Contains(number)
}

// blocking is what is wanted, around the ports of the range that another program has.
func (l *loop) blocking(w Wanted) Wanted {
	w.blocked = nil
	for number := range l.blocked {
		if l.o.Settings.ServicePortRange.Contains(number) {
			w.blocked = append(w.blocked, number)
		}
	}
	slices.Sort(w.blocked)
	return w
}
