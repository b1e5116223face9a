package inventory

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fileExtensions are those of files with variables; the first that exists counts.
var fileExtensions = []string{"", ".yml", ".yaml", ".json"}

// varsFiles reads group_vars and host_vars beside the sources.
type varsFiles struct {
	tree *tree
	// read are the variables by file: a directory beside two sources is read once.
	read map[string]map[string]Variable
	used map[string]bool // names below group_vars and host_vars
}

// attach reads the variables of every group and host from each directory, in order.
func (v *varsFiles) attach(directories []string) error {
	for _, directory := range directories {
		for _, g := range v.tree.groupOrder {
			vars, err := v.of(filepath.Join(directory, "group_vars"), g.name)
			if err != nil {
				return err
			}
			g.files = append(g.files, vars)
		}
		for _, h := range v.tree.hostOrder {
			vars, err := v.of(filepath.Join(directory, "host_vars"), h.name)
			if err != nil {
				return err
			}
			h.files = append(h.files, vars)
		}
	}
	for _, directory := range slices.Compact(slices.Sorted(slices.Values(directories))) {
		v.unused(filepath.Join(directory, "group_vars"), "group")
		v.unused(filepath.Join(directory, "host_vars"), "host")
	}
	return nil
}

// of is the variables that directory has for a group or host.
func (v *varsFiles) of(directory, name string) (map[string]Variable, error) {
	if strings.ContainsRune(name, filepath.Separator) || name == ".." || name == "." || strings.ContainsRune(name, 0) {
		return nil, nil // it would lead out of the directory
	}
	for _, extension := range fileExtensions {
		path := filepath.Join(directory, name+extension)
		status, err := os.Stat(path)
		switch {
		case os.IsNotExist(err), err != nil && isNotDirectory(directory):
			continue
		case err != nil:
			return nil, fmt.Errorf("read variables: %w", err)
		}
		v.used[path] = true
		if !status.IsDir() {
			return v.file(path)
		}
		files, err := varsFilesBelow(path)
		if err != nil {
			return nil, err
		}
		all := map[string]Variable{}
		for _, file := range files {
			vars, err := v.file(file)
			if err != nil {
				return nil, err
			}
			for name, variable := range vars {
				all[name] = variable
			}
		}
		return all, nil
	}
	return nil, nil
}

func isNotDirectory(path string) bool {
	status, err := os.Stat(path)
	return err == nil && !status.IsDir()
}

// varsFilesBelow are the files of a directory of variables, in the order in
// which they override each other.
func varsFilesBelow(directory string) ([]string, error) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return nil, fmt.Errorf("read variables: %w", err)
	}
	var files []string
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".") || strings.HasSuffix(name, "~") {
			continue
		}
		path := filepath.Join(directory, name)
		status, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read variables: %w", err)
		}
		switch extension := filepath.Ext(name); {
		case status.IsDir() && extension == "":
			below, err := varsFilesBelow(path)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		case status.Mode().IsRegular() && slices.Contains(fileExtensions, extension):
			files = append(files, path)
		}
	}
	return files, nil
}

func (v *varsFiles) file(path string) (map[string]Variable, error) {
	if vars, ok := v.read[path]; ok {
		return vars, nil
	}
	data, err := v.tree.readFile(path)
	if err != nil {
		return nil, err
	}
	vars, odd, err := parseVars(path, data, v.tree.keyring)
	if err != nil {
		return nil, err
	}
	v.tree.findings = append(v.tree.findings, odd...)
	v.read[path] = vars
	return vars, nil
}

// unused finds files with variables of groups or hosts that do not exist.
func (v *varsFiles) unused(directory, kind string) {
	entries, err := os.ReadDir(directory)
	if err != nil {
		return // there is none
	}
	for _, e := range entries {
		path := filepath.Join(directory, e.Name())
		if v.used[path] || strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") {
			continue
		}
		v.tree.odd(Position{File: path}, "unused-file", "no %s has this name; nothing reads the file", kind)
	}
}

// parseVars reads a file of variables.
func parseVars(file string, data []byte, keyring *Keyring) (map[string]Variable, []Finding, error) {
	root, err := parseDocument(file, data)
	if err != nil {
		return nil, nil, err
	}
	if root == nil || isNothing(root) {
		return nil, nil, nil
	}
	d := &decoding{file: file, keyring: keyring}
	if root, err = d.enter(root); err != nil {
		return nil, nil, err
	}
	if root.Kind != yaml.MappingNode {
		return nil, nil, errorAt(d.at(root), "variables are a mapping of names to values, and this is none")
	}
	entries, err := d.entries(root)
	if err != nil {
		return nil, nil, err
	}
	vars := make(map[string]Variable, len(entries))
	for _, e := range entries {
		value, err := d.value(e.value)
		if err != nil {
			return nil, nil, err
		}
		vars[e.name] = Variable{value, d.at(e.key)}
	}
	return vars, d.odd, nil
}

// parseExtra reads one -e: "@file", YAML or JSON in braces, or name=value words,
// whose values are strings.
func (t *tree) parseExtra(argument string) (map[string]Variable, error) {
	at := Position{File: "-e"}
	switch {
	case strings.TrimSpace(argument) == "":
		return nil, nil
	case argument[0] == '@':
		data, err := t.readFile(argument[1:])
		if err != nil {
			return nil, err
		}
		vars, odd, err := parseVars(argument[1:], data, t.keyring)
		t.findings = append(t.findings, odd...)
		return vars, err
	case argument[0] == '/' || argument[0] == '.':
		return nil, errorAt(at, "%q looks like a file; write -e @%s", argument, argument)
	case argument[0] == '{' || argument[0] == '[':
		vars, _, err := parseVars("-e", []byte(argument), t.keyring)
		return vars, err
	}
	tokens, err := words(argument, false)
	if err != nil {
		// The argument may be a secret: it is not repeated.
		return nil, errorAt(at, "%v", err)
	}
	vars := map[string]Variable{}
	for _, token := range tokens {
		name, value, ok := strings.Cut(token, "=")
		if !ok || name == "" {
			return nil, errorAt(at, "%q is no variable; write name=value, or @file", name)
		}
		vars[name] = Variable{value, at}
	}
	return vars, nil
}
