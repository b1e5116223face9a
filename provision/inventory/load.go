package inventory

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Options say what an inventory is read from.
type Options struct {
	// Sources are files, directories, programs, and lists of hosts ("a,b,"),
	// as Ansible's -i takes them. Later ones add to and override earlier ones.
	Sources []string
	// Extra are variables that override all others, as Ansible's -e takes them:
	// "name=value", "@file", or YAML in braces.
	Extra []string
	// Keyring decrypts what Ansible Vault encrypted; nil has no password.
	Keyring *Keyring
}

// Inventory is what was read. It does not change.
type Inventory struct {
	groups     map[string]*Group
	groupOrder []*Group
	hosts      map[string]*Host
	hostOrder  []*Host
	findings   []Finding
	extra      map[string]Variable
	files      []string
}

// Load reads an inventory. The error says file and line where there are any. What
// could be read and is wrong all the same is in [Inventory.Findings].
func Load(ctx context.Context, options Options) (*Inventory, error) {
	if len(options.Sources) == 0 {
		return nil, errors.New("no inventory was named")
	}
	l := &loader{ctx: ctx, tree: newTree(options.Keyring)}
	var directories []string
	for _, source := range options.Sources {
		directory, err := l.source(source)
		if err != nil {
			return nil, err
		}
		if directory != "" {
			directories = append(directories, directory)
		}
	}
	l.tree.settle()
	files := &varsFiles{tree: l.tree, read: map[string]map[string]Variable{}, used: map[string]bool{}}
	if err := files.attach(directories); err != nil {
		return nil, err
	}
	extra := map[string]Variable{}
	for _, argument := range options.Extra {
		vars, err := l.tree.parseExtra(argument)
		if err != nil {
			return nil, err
		}
		for name, variable := range vars {
			extra[name] = variable
		}
	}
	return l.tree.inventory(extra, l.files), nil
}

// inventory is the finished tree.
func (t *tree) inventory(extra map[string]Variable, files []string) *Inventory {
	inv := &Inventory{
		groups: t.groups, groupOrder: t.groupOrder, hosts: t.hosts, hostOrder: t.hostOrder,
		extra: extra, files: files,
	}
	for _, h := range inv.hostOrder {
		h.inventory = inv
		h.effective = h.merge(extra)
	}
	inv.findings = append(t.findings, lint(inv)...)
	slices.SortStableFunc(inv.findings, CompareFindings)
	inv.findings = slices.CompactFunc(inv.findings, func(a, b Finding) bool { return a == b })
	return inv
}

type loader struct {
	ctx   context.Context
	tree  *tree
	files []string
}

// source reads one source and returns the directory whose group_vars and
// host_vars belong to it.
func (l *loader) source(source string) (directory string, err error) {
	status, err := os.Stat(source)
	switch {
	case err != nil && strings.Contains(source, ","):
		return "", l.list(source)
	case err != nil:
		return "", fmt.Errorf("read the inventory: %w", err)
	case status.IsDir():
		return source, l.directory(source)
	}
	return filepath.Dir(source), l.file(source, status)
}

// list reads hosts separated by commas.
func (l *loader) list(source string) error {
	at := Position{File: "-i " + source}
	l.tree.source = source
	l.tree.sections++
	for name := range strings.SplitSeq(source, ",") {
		name = strings.TrimSpace(name)
		if name == "" {
			continue
		}
		hosts, port, err := expandPattern(name)
		if err != nil {
			return errorAt(at, "%v", err)
		}
		if len(hosts) != 1 || strings.Contains(name, "[") && hosts[0] != strings.Trim(name, "[]") && port == 0 {
			hosts, port = []string{name}, 0 // no ranges on the command line, as in Ansible
		}
		l.tree.host(hosts[0], port, l.tree.groups["ungrouped"], mention{at: at, pattern: name, section: l.tree.sections})
	}
	return nil
}

// ignoredInDirectory is what Ansible does not read from a directory of inventories.
var ignoredInDirectory = regexp.MustCompile(`^\.|^(?:host_vars|group_vars|vars_plugins)$|(?:\.pyc|\.pyo|\.swp|\.bak|~|\.rpm|\.md|\.txt|\.rst|\.orig|\.ini|\.cfg|\.retry)$`)

func (l *loader) directory(directory string) error {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return fmt.Errorf("read the inventory: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(directory, e.Name())
		if ignoredInDirectory.MatchString(e.Name()) {
			if strings.HasSuffix(e.Name(), ".ini") || strings.HasSuffix(e.Name(), ".cfg") {
				l.tree.odd(Position{File: path}, "ignored-file", "Ansible reads no *.ini and *.cfg from a directory, so neither does mi-lb; name the file with -i, or take its extension away")
			}
			continue
		}
		status, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Errorf("read the inventory: %w", err)
		case status.IsDir():
			err = l.directory(path)
		default:
			err = l.file(path, status)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readFile is a file's text, decrypted if it has to be.
func (t *tree) readFile(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the inventory: %w", err)
	}
	if !isVault(data) {
		return data, nil
	}
	plain, err := t.keyring.decrypt(string(data))
	if err != nil {
		return nil, errorAt(Position{path, 1}, "the file cannot be read: %v", err)
	}
	return []byte(plain), nil
}

// file reads one file in whichever form it has.
func (l *loader) file(path string, status os.FileInfo) error {
	l.tree.source = path
	l.files = append(l.files, path)
	data, err := l.tree.readFile(path)
	if err != nil {
		return err
	}
	if script := bytes.HasPrefix(data, []byte("#!")); script || bytes.IndexByte(data[:min(len(data), 512)], 0) >= 0 {
		if status.Mode()&0o111 == 0 {
			return errorAt(Position{path, 1}, "this is a program, and it is not executable; chmod +x it, or take the first line away")
		}
		return l.tree.readProgram(l.ctx, path)
	}
	switch extension := filepath.Ext(path); extension {
	case ".yml", ".yaml", ".json":
		root, err := parseDocument(path, data)
		if err != nil {
			return err
		}
		return l.document(path, root)
	case "":
		// As Ansible does: YAML if it is a mapping, else INI.
		root, err := parseDocument(path, data)
		if err == nil && root != nil && root.Kind == yaml.MappingNode {
			return l.document(path, root)
		}
		if err != nil && looksLikeYAML(data) {
			return err
		}
	}
	return l.tree.readINI(path, data)
}

func (l *loader) document(path string, root *yaml.Node) error {
	if isDynamic(root) && (filepath.Ext(path) == ".json" || hasMeta(root)) {
		return l.tree.readDynamic(path, root, nil)
	}
	return l.tree.readYAML(path, root)
}

func hasMeta(root *yaml.Node) bool {
	for i := 0; i < len(root.Content); i += 2 {
		if root.Content[i].Value == "_meta" {
			return true
		}
	}
	return false
}

var yamlStart = regexp.MustCompile(`^(?:---|\{|[\w.="'-]+:\s*(?:#.*)?$)`)

// looksLikeYAML says by the first line that says anything whether an error in
// the YAML is what the user wants to hear of.
func looksLikeYAML(data []byte) bool {
	for line := range bytes.Lines(data) {
		line = bytes.TrimRight(line, " \t\r\n")
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		return yamlStart.Match(line)
	}
	return false
}
