package render

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// view is a whole table as templates see it.
type view struct {
	settings *settingsView
	// sections are those of the backends; "" where they must be rendered from views.
	sections string
	ports    []portView
	rows     map[string][]Row
	// grows says that defaults for further spares are written; see [Renderer.Grows].
	grows bool
	// sameRows are the maps whose rows are as they were in the last rendering.
	sameRows map[string]bool
}

// allBackends are the backends of the table and the spares.
func (v *view) allBackends(t *routing.Table, s Settings) ([]*backendView, error) {
	var all []*backendView
	for _, b := range t.Backends {
		bv, err := newBackendView(s, b)
		if err != nil {
			return nil, err
		}
		all = append(all, bv)
	}
	for _, spare := range s.Spares(t) {
		sv, err := newSpareView(s, spare)
		if err != nil {
			return nil, fmt.Errorf("render %s: %w", spare.Name, err)
		}
		all = append(all, sv)
	}
	return all, nil
}

// The maps, by the name of their file without ".map".
const (
	hostsMap       = "hosts"
	appIDsMap      = "app-ids"
	serverNamesMap = "server-names"
	portsMap       = "ports"      // in TCP
	httpPortsMap   = "http-ports" // in HTTP
	spareChecksMap = "spare-checks"
)

func newView(t *routing.Table, s Settings, former, next *cache) (*view, error) {
	sv, err := newSettingsView(s)
	if err != nil {
		return nil, fmt.Errorf("render settings: %w", err)
	}
	v := &view{settings: sv, rows: map[string][]Row{}, sameRows: map[string]bool{}}
	backends := make(map[string]*routing.Backend, len(t.Backends))
	for _, b := range t.Backends {
		if backends[b.ID] != nil {
			return nil, &InputError{Service: b.Service, Backend: b.ID, Err: fmt.Errorf("the backend is there twice")}
		}
		backends[b.ID] = b
	}
	if err := v.addPorts(t, s, backends); err != nil {
		return nil, err
	}
	if former.routes.of(t.Routes) {
		for name, rows := range former.routes.rows {
			v.rows[name], v.sameRows[name] = rows, true
		}
		next.routes = former.routes
	} else if err := v.addRoutes(t, backends, next); err != nil {
		return nil, err
	}
	for name, rows := range v.rows {
		if v.sameRows[name] {
			continue
		}
		slices.SortFunc(rows, func(a, b Row) int { return strings.Compare(a.Key, b.Key) })
		for i := 1; i < len(rows); i++ {
			if rows[i].Key == rows[i-1].Key {
				return nil, fmt.Errorf("render %s.map: %q leads to %s and %s", name, rows[i].Key, rows[i-1].Value, rows[i].Value)
			}
		}
	}
	return v, nil
}

// addRoutes adds the rows of all routes, and remembers them.
func (v *view) addRoutes(t *routing.Table, backends map[string]*routing.Backend, next *cache) error {
	rows := map[string][]Row{hostsMap: nil, appIDsMap: nil, serverNamesMap: nil}
	for _, r := range t.Routes {
		name, row, err := routeRow(r, backends[r.Backend])
		if err != nil {
			return &InputError{Service: r.Service, Backend: r.Backend, Err: err}
		}
		rows[name] = append(rows[name], row)
	}
	maps.Copy(v.rows, rows)
	next.routes = rowsOf{t.Routes, rows}
	return nil
}

// MapRow is the row that a route has in a map, and the name of that map's file. It
// is what [Render] writes, for those who change maps at run time.
func MapRow(r routing.Route) (file string, row Row, err error) {
	name, row, err := mapRow(r)
	return name + ".map", row, err
}

// Listens says whether any listener looks at routes of the kind. HAProxy loads the
// map of no other.
func (s Settings) Listens(kind routing.RouteKind) bool {
	switch kind {
	case routing.ByAppID:
		return len(s.AppID) > 0
	case routing.BySNI:
		return len(s.HTTPS) > 0
	}
	return len(s.HTTP) > 0 || len(s.HTTPS) > 0 && s.Certificates != ""
}

func mapRow(r routing.Route) (name string, row Row, err error) {
	var e encoder
	row.Value = encode.Name(r.Backend)
	switch r.Kind {
	case routing.ByHost:
		path := r.Path
		if path == "" {
			path = "/"
		}
		// A row of segments ends in "/", as the key that is looked up does; a prefix of
		// characters ends where it ends.
		if !r.PathPrefix {
			path = strings.TrimSuffix(path, "/") + "/"
		}
		host := "*" // of any host
		if r.Host != host {
			host = e.text(encode.Host(r.Host))
		}
		name, row.Key = hostsMap, host+e.text(encode.Path(path))
	case routing.BySNI:
		name, row.Key = serverNamesMap, e.text(encode.Host(r.Host))
	case routing.ByAppID:
		name, row.Key = appIDsMap, e.text(encode.MapKey(strings.ToLower(r.Host)))
	default:
		return "", Row{}, fmt.Errorf("a route by %q is not known", r.Kind)
	}
	e.text(encode.MapRow(row.Key, row.Value))
	if e.err != nil {
		return "", Row{}, fmt.Errorf("route %s%s: %w", r.Host, r.Path, e.err)
	}
	return name, row, nil
}

func routeRow(r routing.Route, b *routing.Backend) (string, Row, error) {
	name, row, err := mapRow(r)
	if err != nil {
		return "", Row{}, err
	}
	want := routing.HTTP
	if r.Kind == routing.BySNI {
		want = routing.TCP
	}
	if b == nil {
		return "", Row{}, fmt.Errorf("route %s%s leads to a backend that is not there", r.Host, r.Path)
	}
	if b.Protocol != want {
		return "", Row{}, fmt.Errorf("route %s%s is %s and its backend %s", r.Host, r.Path, want, b.Protocol)
	}
	return name, row, nil
}

// PortRow is the row of a service port of [Settings.ServicePortRange], in the map of
// those that speak what it does.
func PortRow(p routing.Port) (file string, row Row) {
	file = portsMap
	if p.Protocol == routing.HTTP {
		file = httpPortsMap
	}
	return file + ".map", Row{Key: strconv.Itoa(p.Number), Value: encode.Name(p.Backend)}
}

// InRange says whether a port is opened and closed by a row of a map, rather than with
// a frontend of its own.
func (s Settings) InRange(p routing.Port) bool { return s.ServicePortRange.Contains(p.Number) }

// PortName is the name of a service port's own frontend.
func PortName(number int) string { return fmt.Sprintf("%sport-%d", internal, number) }

func (v *view) addPorts(t *routing.Table, s Settings, backends map[string]*routing.Backend) error {
	taken := map[int]bool{}
	for _, p := range t.Ports {
		fail := func(err error) error {
			return &InputError{Service: p.Service, Backend: p.Backend, Err: fmt.Errorf("port %d: %w", p.Number, err)}
		}
		b := backends[p.Backend]
		switch {
		case b == nil:
			return fail(fmt.Errorf("leads to a backend that is not there"))
		case b.Protocol != p.Protocol:
			return fail(fmt.Errorf("is %s and its backend %s", p.Protocol, b.Protocol))
		case taken[p.Number]:
			return fail(fmt.Errorf("is there twice"))
		}
		taken[p.Number] = true
		if s.InRange(p) {
			file, row := PortRow(p)
			name := strings.TrimSuffix(file, ".map")
			v.rows[name] = append(v.rows[name], row)
			continue
		}
		var e encoder
		view := portView{
			Name:    PortName(p.Number),
			Number:  p.Number,
			Address: e.text(address(s, p.Number)),
			HTTP:    p.Protocol == routing.HTTP,
			Backend: encode.Name(p.Backend),
			Via:     watch.Printable(p.Via),
		}
		if e.err != nil {
			return fail(e.err)
		}
		v.ports = append(v.ports, view)
	}
	ranges, err := portRanges(s)
	v.settings.PortRange = ranges
	return err
}

// portRanges are the binds of the range, with holes where another program has a port:
// HAProxy would not start.
func portRanges(s Settings) ([]string, error) {
	r := s.ServicePortRange
	if r == (PortRange{}) {
		return nil, nil
	}
	addr, err := netip.ParseAddr(s.ServicePortAddress)
	if err != nil {
		return nil, fmt.Errorf("service ports at %q: %w", s.ServicePortAddress, err)
	}
	host := addr.String()
	if addr.Is6() {
		host = "[" + host + "]"
	}
	blocked := func(port int) bool {
		_, found := slices.BinarySearch(s.BlockedPorts, port)
		return found
	}
	var ranges []string
	for first := r.First; first <= r.Last; first++ {
		if blocked(first) {
			continue
		}
		last := first
		for last < r.Last && !blocked(last+1) {
			last++
		}
		ranges = append(ranges, fmt.Sprintf("%s:%d-%d", host, first, last))
		first = last
	}
	return ranges, nil
}

// Structure is what the frontends depend on besides the service ports that have one
// each: while it stays the same, rows of maps are enough to change a route. It
// differs when the first route by server name comes or the last goes (the HTTPS
// port is then read, or no longer, before it is decrypted), and when another program
// takes a port of the range or gives it back.
func (s Settings) Structure(t *routing.Table) string {
	s = s.WithDefaults()
	var parts []string
	if len(s.HTTPS) > 0 && s.Certificates != "" &&
		slices.ContainsFunc(t.Routes, func(r routing.Route) bool { return r.Kind == routing.BySNI }) {
		parts = append(parts, "passthrough")
	}
	// An address that is none is an error of Render's.
	ranges, _ := portRanges(s)
	return strings.Join(append(parts, ranges...), " ")
}
