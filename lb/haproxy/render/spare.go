package render

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// Spare is a backend without servers that is rendered for a service to come.
type Spare struct {
	// Name is HAProxy's.
	Name string
	// Shape is what it has in common with the backends that it can become; see [Shape].
	Shape string
	like  *routing.Backend
}

// SpareName is the name of the i-th spare backend, from 0.
func SpareName(i int) string { return internal + "spare-" + strconv.Itoa(i) }

// shape of a backend as a backend that has nothing else; false if no spare can be it,
// because it has what hardly any other has.
func shape(b *routing.Backend) (routing.Backend, bool) {
	s := routing.Backend{Protocol: b.Protocol, Balance: b.Balance, Sticky: b.Sticky, Timeouts: b.Timeouts}
	if s.Balance == "" || s.Balance == "static-rr" {
		s.Balance = "roundrobin"
	}
	if !b.Check.Disabled {
		s.Check.Timeout = b.Check.Timeout
		if b.Check.Path != "" {
			s.Check.Path = "/"
		}
	}
	return s, b.StripPath == "" || b.StripPath == "/" || b.Protocol != routing.HTTP
}

// Shape is the same text for all backends that one spare can be: whose sections differ
// in nothing but their names, their servers, and what is asked of them in a check. "" is
// that of a backend that no spare can be.
func Shape(b *routing.Backend) string {
	s, ok := shape(b)
	if !ok {
		return ""
	}
	words := []string{string(s.Protocol), s.Balance}
	if s.Sticky {
		words = append(words, "sticky")
	}
	if s.Check.Path != "" {
		words = append(words, "httpchk")
	}
	for _, d := range []struct {
		word string
		of   fmt.Stringer
		set  bool
	}{
		{"check", s.Check.Timeout, s.Check.Timeout > 0}, {"connect", s.Timeouts.Connect, s.Timeouts.Connect > 0},
		{"server", s.Timeouts.Server, s.Timeouts.Server > 0}, {"tunnel", s.Timeouts.Tunnel, s.Timeouts.Tunnel > 0},
	} {
		if d.set {
			words = append(words, d.word+" "+d.of.String())
		}
	}
	return strings.Join(words, ", ")
}

// mostShapes bounds how many shapes have spares.
const mostShapes = 6

// Spares are those that [Render] writes for the table: of the common shape, and of
// those that the services of the table have most.
func (s Settings) Spares(t *routing.Table) []Spare {
	s = s.WithDefaults()
	if s.SpareBackends == 0 {
		return nil
	}
	counts := map[string]int{}
	likes := map[string]routing.Backend{}
	count := func(b *routing.Backend, n int) string {
		key := Shape(b)
		if key != "" {
			if _, known := likes[key]; !known {
				likes[key], _ = shape(b)
			}
			counts[key] += n
		}
		return key
	}
	common := count(&routing.Backend{Protocol: routing.HTTP}, 0)
	if s.ServicePortRange != (PortRange{}) {
		count(&routing.Backend{Protocol: routing.TCP}, 1)
	}
	for _, b := range t.Backends {
		count(b, 1)
	}
	shapes := slices.SortedFunc(maps.Keys(likes), func(a, b string) int {
		return cmp.Or(boolCompare(b == common, a == common), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	shapes = shapes[:min(len(shapes), mostShapes)]
	total := 0
	for _, key := range shapes {
		total += counts[key]
	}
	var spares []Spare
	for _, key := range shapes {
		like := likes[key]
		if _, err := newBackendView(s, &like); err != nil {
			continue
		}
		n := 1
		if total > 0 {
			n = max(n, s.SpareBackends*counts[key]/total)
		}
		if key == common {
			n = max(n, (s.SpareBackends+3)/4)
		}
		for range n {
			spares = append(spares, Spare{Name: SpareName(len(spares)), Shape: key, like: &like})
		}
	}
	return spares
}

func boolCompare(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// Checks of a spare ask for what the map says under these keys.
func spareCheckPath(spare string) string { return spare + "/path" }
func spareCheckHost(spare string) string { return spare + "/host" }

// ClaimRows are the rows that make the spare's checks those of the backend, and their
// file; none for a backend that is not checked by HTTP.
func (s Settings) ClaimRows(spare string, b *routing.Backend) (file string, rows []Row, err error) {
	file = spareChecksMap + ".map"
	if b.Check.Disabled || b.Check.Path == "" {
		return file, nil, nil
	}
	path, err := encode.Path(b.Check.Path)
	if err != nil {
		return file, nil, err
	}
	return file, []Row{{spareCheckHost(spare), checkHost(b.Service, s.Domain)}, {spareCheckPath(spare), path}}, nil
}

func newSpareView(s Settings, spare Spare) (*backendView, error) {
	v, err := newBackendView(s, spare.like)
	if err != nil {
		return nil, err
	}
	v.Name = spare.Name
	v.CheckByMap = v.CheckPath != ""
	return v, nil
}

// ShapeName is the name of the defaults section that HAProxy makes spares of the shape
// from at run time; "" if there is none, as a section of defaults cannot have all that a
// backend has.
func ShapeName(shape string) string {
	words := strings.Split(shape, ", ")
	if shape == "" || words[0] != string(routing.HTTP) && slices.Contains(words, "sticky") {
		return "" // a table of clients belongs to a backend
	}
	sum := sha256.Sum256([]byte(shape))
	return internal + "shape-" + hex.EncodeToString(sum[:6])
}

// shapes are the defaults sections for the shapes that have spares.
func (s Settings) shapes(t *routing.Table) ([]*backendView, error) {
	var all []*backendView
	last := ""
	for _, spare := range s.Spares(t) {
		name := ShapeName(spare.Shape)
		if name == "" || spare.Shape == last {
			continue
		}
		last = spare.Shape
		v, err := newSpareView(s, spare)
		if err != nil {
			return nil, fmt.Errorf("render the defaults of %s: %w", spare.Name, err)
		}
		v.Name = name
		all = append(all, v)
	}
	return all, nil
}
