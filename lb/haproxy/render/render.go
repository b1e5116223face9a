package render

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"text/template"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
	"github.com/mi-lb/mi-lb/watch"
)

// Files are the files of one configuration: name (no directory) to content.
type Files map[string][]byte

// ConfigFile is the name of HAProxy's configuration among [Files].
const ConfigFile = "haproxy.cfg"

// Renderer renders with one set of templates.
type Renderer struct {
	engine *templates.Engine

	mu   sync.Mutex
	last *cache
}

// New is a renderer with the engine's templates.
func New(engine *templates.Engine) *Renderer { return &Renderer{engine: engine} }

// Render is the table, written down. Errors are an [*InputError] where one service
// is at fault, a [*templates.Error] for a mistake in a template, and a
// [*templates.MissingError] when a template waits for something.
func (r *Renderer) Render(ctx context.Context, t *routing.Table, s Settings, world *watch.Snapshot) (Files, error) {
	s = s.WithDefaults()
	r.mu.Lock()
	former := r.last
	r.mu.Unlock()
	if !former.fits(s) {
		former = newCache(s)
	}
	next := newCache(s)
	v, err := newView(t, s, former, next)
	if err != nil {
		return nil, err
	}
	if v.sections, err = r.sections(t, s, v, former, next); err != nil {
		return nil, err
	}
	v.grows = r.Grows()
	functions := v.functions(t, s)
	files := Files{}
	var missing []templates.Missing
	file := ""
	for _, name := range r.engine.Files() {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		if content, ok := r.cached(name, v, former); ok {
			files[name], next.maps[name] = content, content
			continue
		}
		content, err := r.engine.Execute(name, functions, world)
		var waits *templates.MissingError
		switch {
		case errors.As(err, &waits):
			// The others are rendered too, so that all they wait for is asked for at once.
			missing, file = append(missing, waits.Missing...), waits.File
		case err != nil:
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		files[name] = content
		if strings.HasSuffix(name, ".map") {
			next.maps[name] = content
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("render: %w", &templates.MissingError{File: file, Missing: missing})
	}
	r.mu.Lock()
	r.last = next
	r.mu.Unlock()
	return files, nil
}

// Grows says whether the files have the defaults that HAProxy needs to make spare
// backends itself; [ShapeName] names them. Those of an operator's own templates are not
// known to be the same for all backends of a shape.
func (r *Renderer) Grows() bool {
	for _, name := range []string{ConfigFile, "defaults", "backend", "options", "shapes"} {
		if !r.engine.BuiltIn(name) {
			return false
		}
	}
	return true
}

// ServerArgs are what follows `add server ` to add each of the servers to the
// backend: "backend/name address …". They come from the template of the
// configuration's server lines. On HAProxy a server added is in maintenance until
// `enable server`, unchecked until `enable health`, and without a stickiness cookie
// until `enable dynamic-cookie backend`.
func (r *Renderer) ServerArgs(b *routing.Backend, servers []routing.Server, s Settings) ([]string, error) {
	s = s.WithDefaults()
	sv, err := newSettingsView(s)
	if err != nil {
		return nil, fmt.Errorf("render settings: %w", err)
	}
	views := make([]serverView, len(servers))
	for i, server := range servers {
		if views[i], err = newServerView(s, b, server); err != nil {
			return nil, err
		}
	}
	functions := (&view{settings: sv}).functions(&routing.Table{}, s)
	functions["servers"] = func() []serverView { return views }
	text, err := r.engine.ExecuteText("server", "{{ range servers }}{{ template \"server\" . }}\n{{ end }}", functions)
	if err != nil {
		return nil, fmt.Errorf("render servers of backend %q: %w", b.ID, err)
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if len(servers) == 0 {
		return nil, nil
	}
	if len(lines) != len(servers) {
		return nil, fmt.Errorf("render servers of backend %q: the template server must give one line for a server, and gave %d for %d",
			b.ID, len(lines), len(servers))
	}
	backend := encode.Name(b.ID)
	args := make([]string, len(lines))
	for i, line := range lines {
		words, err := encode.Words(line)
		if err != nil {
			return nil, fmt.Errorf("render server %q of backend %q: %w", servers[i].Name, b.ID, err)
		}
		if args[i], err = addServer(backend, words); err != nil {
			return nil, fmt.Errorf("render server %q of backend %q: %w", servers[i].Name, b.ID, err)
		}
	}
	return args, nil
}

// addServer is the argument of `add server` for the words of a server line.
func addServer(backend string, words []string) (string, error) {
	if len(words) < 2 {
		return "", errors.New("a server line has a name and an address at least")
	}
	var b strings.Builder
	b.WriteString(backend + "/")
	for i, word := range words {
		if i > 0 {
			b.WriteByte(' ')
		}
		arg, err := encode.Argument(word)
		if err != nil {
			return "", err
		}
		b.WriteString(arg)
	}
	return b.String(), nil
}

// functions are what templates may call besides consul-template's own.
func (v *view) functions(t *routing.Table, s Settings) template.FuncMap {
	return template.FuncMap{
		// What there is. The texts in it are encoded, but for those of table.
		"settings": func() *settingsView { return v.settings },
		"backends": func() ([]*backendView, error) { return v.allBackends(t, s) },
		"sections": func() string { return v.sections },
		"shapes": func() ([]*backendView, error) {
			if !v.grows {
				return nil, nil
			}
			return s.shapes(t)
		},
		"ports": func() []portView { return v.ports },
		// Each frontend asks for these.
		"httpPorts":   sync.OnceValue(v.httpPorts),
		"handovers":   sync.OnceValue(v.handovers),
		"rows":        func(name string) []Row { return v.rows[name] },
		"serverNames": func() bool { return len(v.rows[serverNamesMap]) > 0 },
		"table":       func() *routing.Table { return t },
		// The path of a file that is rendered too.
		"pathOf": func(name string) (string, error) {
			if name != filepath.Base(name) {
				return "", fmt.Errorf("%q is not the name of a file", name)
			}
			if s.Plain {
				return encode.Quote(filepath.Join(s.Dir, name))
			}
			return encode.Quote(filepath.Join(Current(s.Dir), name))
		},
		// Encoders, for values of table, services and keys.
		"name":      encode.Name,
		"quote":     encode.Quote,
		"logFormat": encode.LogFormat,
		"hostName":  encode.Host,
		"urlPath":   encode.Path,
		"number":    encode.Number,
		"duration":  encode.Duration,
		"address":   encode.Address,
		"mapRow":    encode.MapRow,
	}
}
