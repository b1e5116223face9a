package templates

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"text/template"

	dep "github.com/hashicorp/consul-template/dependency"
	ct "github.com/hashicorp/consul-template/template"

	"github.com/mi-lb/mi-lb/watch"
)

// Options say where templates come from and what they may ask.
type Options struct {
	// Dir holds the operator's templates. A file there takes the place of the
	// built-in one of the same name (".tmpl" and ".ctmpl" at the end do not
	// count); any other one is added: with a "." in its name it is rendered to a
	// file of that name, without one it is a fragment for {{template "name" .}}.
	// "" is for the built-in ones only.
	Dir string
	// Consul and Vault are asked what no snapshot holds; nil for none.
	Consul *Consul
	Vault  *Vault
	// Allow names functions of [DeniedFunctions] that templates may call after all.
	Allow []string
	// Logger is told of failing queries; nil for none.
	Logger *slog.Logger
}

// DeniedFunctions are consul-template's functions that run a program or write a
// file. A template has no need for them here, and a typing error in one would act
// with the rights of the edge at every rendering.
func DeniedFunctions() []string { return []string{"plugin", "writeToFile"} }

// Engine renders templates. Its methods may be called at the same time.
type Engine struct {
	dir     string
	denied  []string
	sources atomic.Pointer[sources]
	brain   *ct.Brain
	catalog *catalog
	fetcher *fetcher

	mu sync.Mutex
	// used are, by source, the names of what its last complete rendering used, and
	// whatever it has asked for since.
	used map[string]map[string]bool
}

// New reads the templates. An error names the file and line at fault.
func New(o Options) (*Engine, error) {
	all, err := load(o.Dir)
	if err != nil {
		return nil, err
	}
	for _, name := range o.Allow {
		if !slices.Contains(DeniedFunctions(), name) {
			return nil, fmt.Errorf("allow template function %q: only %s need to be allowed",
				name, strings.Join(DeniedFunctions(), " and "))
		}
	}
	clients, err := newClients(o.Consul, o.Vault)
	if err != nil {
		return nil, err
	}
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	brain := ct.NewBrain()
	e := &Engine{
		dir: o.Dir,
		denied: slices.DeleteFunc(DeniedFunctions(), func(name string) bool {
			return slices.Contains(o.Allow, name)
		}),
		brain:   brain,
		catalog: newCatalog(brain),
		fetcher: newFetcher(clients, brain, logger),
		used:    map[string]map[string]bool{},
	}
	e.sources.Store(&all)
	return e, nil
}

// Run keeps fresh what templates have asked for and no snapshot holds, until the
// context ends. Without it such things stay missing.
func (e *Engine) Run(ctx context.Context) { e.fetcher.run(ctx) }

// Changed receives after something that [Engine.Run] keeps fresh has changed.
// Changes that nobody has received yet are one.
func (e *Engine) Changed() <-chan struct{} { return e.fetcher.changed }

// Reload reads the directory again. After an error the former templates stay.
func (e *Engine) Reload() error {
	all, err := load(e.dir)
	if err != nil {
		return err
	}
	e.sources.Store(&all)
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range e.used {
		if all[strings.TrimSuffix(name, textSuffix)] == nil {
			delete(e.used, name)
		}
	}
	return nil
}

// Files are the names of the files that there are templates for, sorted.
func (e *Engine) Files() []string {
	var files []string
	for name, s := range *e.sources.Load() {
		if s.file() {
			files = append(files, name)
		}
	}
	slices.Sort(files)
	return files
}

// BuiltIn says whether the template of that name is the built-in one.
func (e *Engine) BuiltIn(name string) bool {
	s, ok := (*e.sources.Load())[name]
	return ok && s.builtin
}

// Execute renders the template of that name with the functions added to
// consul-template's own. The snapshot is the world it is about; with nil it is
// that of the last call that had one. Errors are [*Error] for a mistake in a
// template and [*MissingError] for what has never been seen.
func (e *Engine) Execute(name string, functions template.FuncMap, world *watch.Snapshot) ([]byte, error) {
	all := *e.sources.Load()
	main, ok := all[name]
	if !ok {
		return nil, &Error{File: name, Message: "there is no such template"}
	}
	return e.execute(name, all.with(main), all.full(), functions, world)
}

// textSuffix tells the name of a text apart from that of a file.
const textSuffix = ".text"

// ExecuteText renders a text that may call the fragments that there are. The name
// tells it apart from others and stands in errors.
func (e *Engine) ExecuteText(name, text string, functions template.FuncMap) ([]byte, error) {
	main := &source{name: name + textSuffix, path: name, text: text}
	if err := main.parse(); err != nil {
		return nil, err
	}
	all := *e.sources.Load()
	return e.execute(main.name, all.with(main), all.full(), functions, nil)
}

// rounds is how often a template is executed anew because its dependencies lead
// to others: `range services` → `service .Name` takes three.
const rounds = 10

func (e *Engine) execute(name string, text composed, full bool, functions template.FuncMap, world *watch.Snapshot) ([]byte, error) {
	if text.text == "" {
		return nil, nil // consul-template takes an empty text for a missing one
	}
	tmpl, err := ct.NewTemplate(&ct.NewTemplateInput{
		Contents:         text.text,
		ExtFuncMap:       functions,
		FunctionDenylist: e.denied,
	})
	if err != nil {
		return nil, &Error{File: text.main(), Message: err.Error()}
	}
	if world != nil {
		e.catalog.update(world)
	}
	for range rounds {
		result, err := tmpl.Execute(&ct.ExecuteInput{Brain: e.brain})
		if err != nil {
			return nil, locate(err, text)
		}
		if result.Missing.Len() == 0 {
			e.retain(name, result.Used)
			return result.Output, nil
		}
		// Noted before anything is fetched: the rendering of another source must not
		// end the query for what this one waits for.
		e.note(name, result.Used)
		missing, found := e.look(result.Missing, full)
		if !found {
			return nil, &MissingError{File: text.main(), Missing: missing}
		}
	}
	return nil, &Error{File: text.main(), Message: fmt.Sprintf("asks for new things after %d renderings", rounds)}
}

// look answers what it can of the missing from the snapshot, has the rest fetched,
// and says whether anything was found.
func (e *Engine) look(missing *dep.Set, full bool) (still []Missing, found bool) {
	for _, d := range missing.List() {
		if question, ok := ask(d); ok && !full {
			reason, answered := e.catalog.answer(question, d)
			if answered {
				found = true
				continue
			}
			still = append(still, Missing{Name: title(d), Reason: reason})
			continue
		}
		reason, answered := e.fetcher.want(d)
		if answered {
			found = true
			continue
		}
		still = append(still, Missing{Name: title(d), Reason: reason})
	}
	return still, found
}

// note adds to what the source uses.
func (e *Engine) note(name string, used *dep.Set) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.used[name] == nil {
		e.used[name] = map[string]bool{}
	}
	for _, d := range used.List() {
		e.used[name][d.String()] = true
	}
}

// retain takes what a complete rendering used for all that the source uses, and
// forgets what no source does.
func (e *Engine) retain(name string, used *dep.Set) {
	names := map[string]bool{}
	for _, d := range used.List() {
		names[d.String()] = true
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.used[name] = names
	live := map[string]bool{}
	for _, names := range e.used {
		maps.Copy(live, names)
	}
	e.catalog.retain(live)
	e.fetcher.retain(live)
}

// title is a dependency as templates write it.
func title(d dep.Dependency) string {
	name := d.String()
	for _, t := range titles {
		if rest, ok := strings.CutPrefix(name, t.dependency); ok && (rest == "" || rest[0] == '(') {
			return t.function + rest
		}
	}
	return name
}

var titles = []struct{ dependency, function string }{
	{"kv.block", "key"},
	{"kv.get", "keyOrDefault"},
	{"kv.list", "ls"},
	{"health.service", "service"},
	{"health.connect", "connect"},
	{"catalog.services", "services"},
	{"catalog.datacenters", "datacenters"},
	{"catalog.nodes", "nodes"},
	{"catalog.node", "node"},
	{"vault.read", "secret"},
	{"vault.write", "secret"},
	{"vault.list", "secrets"},
}

// Await renders until nothing is missing or the context ends, in which case the
// error says what was missing. It needs [Engine.Run] and is the only reader of
// [Engine.Changed] meanwhile.
func (e *Engine) Await(ctx context.Context, render func() error) error {
	for {
		err := render()
		if !isMissing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for what templates ask for: %w", err)
		case <-e.Changed():
		}
	}
}
