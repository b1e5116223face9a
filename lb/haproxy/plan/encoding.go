package plan

import (
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Row is a row of a map. Map is the path of its file as the configuration has it.
type Row struct{ Map, Key, Value string }

// Encoding is how the files in use write a table down.
type Encoding struct {
	// Servers are, for each of the servers, what follows `add server `: a first word
	// that names it, which is not used, and its arguments from the template of the
	// configuration's server lines.
	Servers func(b *routing.Backend, servers []routing.Server) ([]string, error)
	// Route is the row of a route, without the value: that is the backend's name. For
	// a route that no listener looks at, Map is "": HAProxy has not loaded the map.
	Route func(r routing.Route) (Row, error)
	// Port is the row of a service port that opens and closes with it, without the
	// value. For a port that has a frontend of its own, Map is "".
	Port func(p routing.Port) (Row, error)
	// Static says that servers cannot be added to the backend, or their weights not
	// be changed, at run time. Nil is [Static].
	Static func(b *routing.Backend) bool
	// Extra are rows that the files have whatever the table says.
	Extra []Row
	// Spares are the backends that files rendered from the table have ahead; nil for
	// none.
	Spares func(t *routing.Table) []Spare
	// Shape is what the backend has in common with those that one spare can become: all
	// but its name and servers. "" for a backend that no spare can.
	Shape func(b *routing.Backend) string
	// Grow names the spare of the shape that a HAProxy with so many spares may make, and
	// the section of defaults that it makes it from; both "" if it cannot. The section is
	// in files that have spares of the shape.
	Grow func(shape string, spares int) (name, from string)
	// Claim are the rows that the spare of that name needs to become the backend,
	// besides its servers.
	Claim func(spare string, b *routing.Backend) ([]Row, error)
}

// Spare is a backend that was rendered ahead, without servers, for one to come.
type Spare struct {
	Name string `json:"name"`
	// Shape as in [Encoding].
	Shape string `json:"shape"`
	// ID is the routing backend that it has become; "" while it is free.
	ID string `json:"id,omitempty"`
}

func (e *Encoding) spares(t *routing.Table) []Spare {
	if e.Spares == nil {
		return nil
	}
	return e.Spares(t)
}

func (e *Encoding) shape(b *routing.Backend) string {
	if e.Shape == nil {
		return ""
	}
	return e.Shape(b)
}

func (e *Encoding) grow(shape string, spares int) (name, from string) {
	if e.Grow == nil {
		return "", ""
	}
	return e.Grow(shape, spares)
}

func (e *Encoding) claim(spare string, b *routing.Backend) ([]Row, error) {
	if e.Claim == nil {
		return nil, nil
	}
	return e.Claim(spare, b)
}

// Static is true of a balance that takes no servers at run time, given that hashes
// are rendered with `hash-type consistent`.
func Static(b *routing.Backend) bool { return strings.HasPrefix(b.Balance, "static-rr") }

func (e *Encoding) static(b *routing.Backend) bool {
	if e.Static != nil {
		return e.Static(b)
	}
	return Static(b)
}

// args are the arguments of `add server` after the name.
func (e *Encoding) args(b *routing.Backend, servers []routing.Server) ([]string, error) {
	lines, err := e.Servers(b, servers)
	if err != nil {
		return nil, err
	}
	args := make([]string, len(lines))
	for i, line := range lines {
		_, args[i], _ = strings.Cut(line, " ")
	}
	return args, nil
}

func backendName(id string) string { return encode.Name(id) }

func serverName(s routing.Server) string { return encode.Server(s.Name, s.Backup) }
