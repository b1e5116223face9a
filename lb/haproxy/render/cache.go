package render

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/mi-lb/mi-lb/lb/routing"
)

// cache is what the last rendering wrote, by what it was written for: tables share what
// did not change, so that only the rest has to be rendered again. It is used where the
// text depends on nothing but the settings and the table, which is to say where the
// templates are the built-in ones.
type cache struct {
	settings Settings
	backends map[*routing.Backend]string
	routes   rowsOf
	maps     map[string][]byte
}

// rowsOf are the rows that routes have in maps.
type rowsOf struct {
	routes []routing.Route
	rows   map[string][]Row
}

// of says whether the rows are those of the routes.
func (r rowsOf) of(routes []routing.Route) bool {
	return r.rows != nil && len(r.routes) == len(routes) && (len(routes) == 0 || &r.routes[0] == &routes[0])
}

// fits says whether the cache was filled with these settings.
func (c *cache) fits(s Settings) bool {
	s.Generation, s.BlockedPorts = "", nil
	return c != nil && reflect.DeepEqual(c.settings, s)
}

func newCache(s Settings) *cache {
	s.Generation, s.BlockedPorts = "", nil
	return &cache{settings: s, backends: map[*routing.Backend]string{}, maps: map[string][]byte{}}
}

// sectionEnd is between the sections of backends that are rendered together. No
// template has it, and no encoder lets it through.
const sectionEnd = "\x00"

// sections are the sections of the table's backends and of spares, with the built-in
// templates; "" with others.
func (r *Renderer) sections(t *routing.Table, s Settings, v *view, from, to *cache) (string, error) {
	if !r.engine.BuiltIn("backend") || !r.engine.BuiltIn("options") || !r.engine.BuiltIn("server") {
		return "", nil
	}
	var fresh []*backendView
	var of []*routing.Backend
	size := 0
	for _, b := range t.Backends {
		if text, known := from.backends[b]; known {
			to.backends[b] = text
			size += len(text)
			continue
		}
		bv, err := newBackendView(s, b)
		if err != nil {
			return "", err
		}
		fresh, of = append(fresh, bv), append(of, b)
	}
	for _, spare := range s.Spares(t) {
		sv, err := newSpareView(s, spare)
		if err != nil {
			return "", fmt.Errorf("render %s: %w", spare.Name, err)
		}
		fresh = append(fresh, sv)
	}
	functions := v.functions(t, s)
	functions["backends"] = func() ([]*backendView, error) { return fresh, nil }
	text, err := r.engine.ExecuteText("backends", `{{ range backends }}{{ template "backend" . }}`+"\n\n"+sectionEnd+"{{ end }}", functions)
	if err != nil {
		return "", fmt.Errorf("render backends: %w", err)
	}
	texts := strings.SplitAfter(string(text), sectionEnd)
	if len(texts) != len(fresh)+1 {
		return "", fmt.Errorf("render backends: %d sections for %d backends", len(texts)-1, len(fresh))
	}
	for i, b := range of {
		to.backends[b] = strings.TrimSuffix(texts[i], sectionEnd)
		size += len(texts[i])
	}
	var all strings.Builder
	all.Grow(size + len(text))
	for _, b := range t.Backends {
		all.WriteString(to.backends[b])
	}
	for _, text := range texts[len(of):] {
		all.WriteString(strings.TrimSuffix(text, sectionEnd))
	}
	return all.String(), nil
}

// cached is the file of that name as the last rendering wrote it, if nothing that is in
// it has changed.
func (r *Renderer) cached(name string, v *view, from *cache) ([]byte, bool) {
	file, isMap := strings.CutSuffix(name, ".map")
	if !isMap || !v.sameRows[file] || !r.engine.BuiltIn(name) {
		return nil, false
	}
	content, known := from.maps[name]
	return content, known
}
