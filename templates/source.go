package templates

import (
	"embed"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template/parse"
)

//go:embed builtin
var builtin embed.FS

// source is one template file.
type source struct {
	name string
	// path is the operator's file, or the name of the built-in one.
	path    string
	text    string
	builtin bool
	// calls are the fragments it calls by name; all if it may call any.
	calls []string
	all   bool
	// fields are those that it reads of anything.
	fields map[string]bool
	// defines are the templates that it defines itself.
	defines map[string]bool
}

// file says whether a file is rendered from the source; otherwise it is a
// fragment, which other sources call with {{template "name" .}}.
func (s *source) file() bool { return isFile(s.name) }

func isFile(name string) bool { return strings.Contains(name, ".") }

type sources map[string]*source

var sourceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// load reads the built-in sources and, in their places or beside them, those of
// the directory. Each is parsed, so that a syntax error names its own file.
func load(dir string) (sources, error) {
	all := sources{}
	inside, err := fs.Sub(builtin, "builtin")
	if err != nil {
		return nil, fmt.Errorf("read built-in templates: %w", err)
	}
	if err := all.read(inside, ""); err != nil {
		return nil, fmt.Errorf("read built-in templates: %w", err)
	}
	if dir == "" {
		return all, nil
	}
	if err := all.read(os.DirFS(dir), dir); err != nil {
		return nil, fmt.Errorf("read templates of %s: %w", dir, err)
	}
	return all, nil
}

func (all sources) read(files fs.FS, dir string) error {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return err
	}
	seen := map[string]string{}
	for _, entry := range entries {
		base := entry.Name()
		if entry.IsDir() || strings.HasPrefix(base, ".") || strings.HasSuffix(base, "~") {
			continue
		}
		name := strings.TrimSuffix(strings.TrimSuffix(base, ".tmpl"), ".ctmpl")
		if !sourceName.MatchString(name) {
			return fmt.Errorf("%s: the name of a template is letters, digits, \".\", \"_\" and \"-\"", base)
		}
		if other, twice := seen[name]; twice {
			return fmt.Errorf("%s and %s are both the template %s; remove one", other, base, name)
		}
		seen[name] = base
		text, err := fs.ReadFile(files, base)
		if err != nil {
			return err
		}
		s := &source{name: name, path: base, text: string(text), builtin: dir == ""}
		if dir != "" {
			s.path = filepath.Join(dir, base)
		}
		if err := s.parse(); err != nil {
			return err
		}
		all[name] = s
	}
	return nil
}

// parse checks the syntax and notes what the source calls and reads.
func (s *source) parse() error {
	tree := parse.New(s.name)
	// Which functions there are is known only when the template is executed.
	tree.Mode = parse.SkipFuncCheck
	trees := map[string]*parse.Tree{}
	if _, err := tree.Parse(s.text, "", "", trees); err != nil {
		return locate(err, compose(s, nil))
	}
	s.fields, s.defines = map[string]bool{}, map[string]bool{}
	for name, t := range trees {
		if name != s.name && !s.file() {
			return &Error{File: s.path, Message: fmt.Sprintf("{{define %q}} stands in a fragment; move it to a file of its own", name)}
		}
		s.defines[name] = name != s.name
		if t.Root != nil {
			s.note(t.Root)
		}
	}
	return nil
}

// note walks a parsed template.
func (s *source) note(n parse.Node) {
	branch := func(b *parse.BranchNode) {
		s.note(b.Pipe)
		s.note(b.List)
		if b.ElseList != nil {
			s.note(b.ElseList)
		}
	}
	switch n := n.(type) {
	case *parse.ListNode:
		for _, child := range n.Nodes {
			s.note(child)
		}
	case *parse.ActionNode:
		s.note(n.Pipe)
	case *parse.IfNode:
		branch(&n.BranchNode)
	case *parse.RangeNode:
		branch(&n.BranchNode)
	case *parse.WithNode:
		branch(&n.BranchNode)
	case *parse.TemplateNode:
		s.calls = append(s.calls, n.Name)
		if n.Pipe != nil {
			s.note(n.Pipe)
		}
	case *parse.PipeNode:
		for _, command := range n.Cmds {
			s.note(command)
		}
	case *parse.CommandNode:
		for _, arg := range n.Args {
			s.note(arg)
		}
	case *parse.IdentifierNode:
		s.all = s.all || n.Ident == "executeTemplate"
	case *parse.ChainNode:
		s.note(n.Node)
		s.read(n.Field)
	case *parse.FieldNode:
		s.read(n.Ident)
	case *parse.VariableNode:
		s.read(n.Ident[1:])
	}
}

func (s *source) read(fields []string) {
	for _, field := range fields {
		s.fields[field] = true
	}
}

// composed is a main source followed by the fragments that it calls, directly or
// not, each as a definition. The line end that
// closes a fragment's file does not count: a call gives what stands before it.
type composed struct {
	text  string
	parts []*source
	// first[i] is the line on which parts[i] begins.
	first []int
}

func compose(main *source, fragments []*source) composed {
	c := composed{text: main.text, parts: []*source{main}, first: []int{1}}
	var b strings.Builder
	b.WriteString(main.text)
	line := 1 + strings.Count(main.text, "\n")
	for _, f := range fragments {
		// The comment ends the line, so that no line is of two sources.
		line++
		fmt.Fprintf(&b, "{{/*\n*/}}{{define %q}}%s{{end}}", f.name, strings.TrimSuffix(f.text, "\n"))
		c.parts = append(c.parts, f)
		c.first = append(c.first, line)
		line += strings.Count(f.text, "\n")
	}
	c.text = b.String()
	return c
}

// main is the file that the text is about.
func (c composed) main() string { return c.parts[0].path }

// origin is the file and line that a line of the text comes from.
func (c composed) origin(line int) (string, int) {
	i := len(c.parts) - 1
	for i > 0 && c.first[i] > line {
		i--
	}
	return c.parts[i].path, line - c.first[i] + 1
}

// with is the main source composed with what it calls.
func (all sources) with(main *source) composed {
	called := map[string]bool{}
	var follow func(s *source)
	follow = func(s *source) {
		calls := s.calls
		if s.all {
			calls = slices.Collect(maps.Keys(all))
		}
		for _, name := range calls {
			// What is not a fragment may be a {{define}} of the main source's own.
			if f, ok := all[name]; ok && !f.file() && !called[name] && !main.defines[name] {
				called[name] = true
				follow(f)
			}
		}
	}
	follow(main)
	var fragments []*source
	for _, name := range slices.Sorted(maps.Keys(called)) {
		fragments = append(fragments, all[name])
	}
	return compose(main, fragments)
}

// full says whether any source reads what no snapshot has. Then all of them get
// their services from Consul: one service has one answer.
func (all sources) full() bool {
	for _, s := range all {
		if slices.ContainsFunc(notInSnapshot, func(name string) bool { return s.fields[name] }) {
			return true
		}
	}
	return false
}
