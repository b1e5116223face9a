package inventory

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// runProgram runs an inventory program and returns what it prints.
func runProgram(ctx context.Context, path string, arguments ...string) ([]byte, error) {
	program := path
	if !strings.ContainsRune(program, filepath.Separator) {
		program = "." + string(filepath.Separator) + program
	}
	command := exec.CommandContext(ctx, program, arguments...)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.Output()
	if err != nil {
		said := strings.TrimSpace(stderr.String())
		if said != "" {
			said = "; it said: " + lastLine(said)
		}
		return nil, errorAt(Position{File: path}, "run %s %s: %v%s", path, strings.Join(arguments, " "), err, said)
	}
	return output, nil
}

func lastLine(s string) string {
	lines := strings.Split(s, "\n")
	return lines[len(lines)-1]
}

// readProgram adds what an inventory program prints.
func (t *tree) readProgram(ctx context.Context, path string) error {
	output, err := runProgram(ctx, path, "--list")
	if err != nil {
		return err
	}
	file := path + " --list"
	root, err := parseJSON(output)
	if err != nil {
		return errorAt(Position{File: file, Line: 1}, "the program does not print JSON: %v", err)
	}
	return t.readDynamic(file, root, func(host string) (*yaml.Node, error) {
		output, err := runProgram(ctx, path, "--host", host)
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(output)) == 0 {
			return nil, nil
		}
		node, err := parseJSON(output)
		if err != nil {
			return nil, errorAt(Position{File: path + " --host " + host, Line: 1}, "the program does not print JSON: %v", err)
		}
		return node, nil
	})
}

// isDynamic says whether a document has the form that inventory programs print,
// rather than that of YAML inventories: lists of hosts, and _meta.
func isDynamic(root *yaml.Node) bool {
	if root == nil || root.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, group := root.Content[i], root.Content[i+1]
		if key.Value == "_meta" || group.Kind == yaml.SequenceNode {
			return true
		}
		if group.Kind != yaml.MappingNode {
			continue
		}
		for j := 0; j+1 < len(group.Content); j += 2 {
			if name := group.Content[j].Value; (name == "hosts" || name == "children") && group.Content[j+1].Kind == yaml.SequenceNode {
				return true
			}
		}
	}
	return false
}

// readDynamic adds a document in the form that inventory programs print. ask
// gives the variables of a host where the document has no _meta; it may be nil.
func (t *tree) readDynamic(file string, root *yaml.Node, ask func(host string) (*yaml.Node, error)) error {
	d := &decoding{file: file, keyring: t.keyring}
	defer func() { t.findings = append(t.findings, d.odd...) }()
	if root.Kind != yaml.MappingNode {
		return errorAt(d.at(root), "an inventory is an object of groups, and this is none")
	}
	groups, err := d.entries(root)
	if err != nil {
		return err
	}
	var meta map[string]entry
	var listed []*Host
	for _, g := range groups {
		if g.name == "_meta" {
			if meta, err = hostvars(d, g); err != nil {
				return err
			}
			continue
		}
		hosts, err := t.dynamicGroup(d, g)
		if err != nil {
			return err
		}
		listed = append(listed, hosts...)
	}
	done := map[*Host]bool{}
	for _, host := range listed {
		if done[host] {
			continue
		}
		done[host] = true
		var node *yaml.Node
		if meta != nil {
			node = meta[host.name].value
		} else if ask != nil {
			if node, err = ask(host.name); err != nil {
				return err
			}
		}
		if node == nil || isNothing(node) {
			continue
		}
		if node.Kind != yaml.MappingNode {
			return errorAt(d.at(node), "the variables of host %q are no object", host.name)
		}
		entries, err := d.entries(node)
		if err != nil {
			return err
		}
		for _, e := range entries {
			value, err := d.value(e.value)
			if err != nil {
				return err
			}
			t.set("host "+host.name, host.vars, e.name, value, d.at(e.key))
		}
	}
	for name, e := range meta {
		if t.hosts[name] == nil {
			t.odd(d.at(e.key), "host-in-no-group", "_meta has variables of host %q, which is in no group; Ansible ignores them", name)
		}
	}
	return nil
}

// hostvars are the variables by host; nil where _meta has none.
func hostvars(d *decoding, meta entry) (map[string]entry, error) {
	wrong := errorAt(d.at(meta.key), "_meta must be an object with hostvars, an object of objects")
	if meta.value.Kind != yaml.MappingNode {
		return nil, wrong
	}
	entries, err := d.entries(meta.value)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.name != "hostvars" {
			continue
		}
		if e.value.Kind != yaml.MappingNode {
			return nil, wrong
		}
		hosts, err := d.entries(e.value)
		if err != nil {
			return nil, err
		}
		all := make(map[string]entry, len(hosts))
		for _, h := range hosts {
			all[h.name] = h
		}
		return all, nil
	}
	return nil, nil
}

// dynamicGroup adds one group and returns the hosts it lists.
func (t *tree) dynamicGroup(d *decoding, e entry) ([]*Host, error) {
	if e.name == "" {
		return nil, errorAt(d.at(e.key), "a group has an empty name")
	}
	group := t.group(e.name, d.at(e.key))
	if group.at.File == "" {
		group.at = d.at(e.key)
	}
	t.sections++
	if e.value.Kind != yaml.MappingNode {
		return t.dynamicHosts(d, group, e.value)
	}
	parts, err := d.entries(e.value)
	if err != nil {
		return nil, err
	}
	var hosts, vars, children *yaml.Node
	for _, part := range parts {
		switch part.name {
		case "hosts":
			hosts = part.value
		case "vars":
			vars = part.value
		case "children":
			children = part.value
		}
	}
	var listed []*Host
	if hosts == nil && vars == nil && children == nil {
		// The short form: a host of the group's name, and its variables.
		vars = e.value
		listed = append(listed, t.host(e.name, 0, group, mention{at: d.at(e.key), pattern: e.name, section: t.sections}))
	}
	if hosts != nil {
		if listed, err = t.dynamicHosts(d, group, hosts); err != nil {
			return nil, err
		}
	}
	if vars != nil {
		if vars.Kind != yaml.MappingNode {
			return nil, errorAt(d.at(vars), "vars of group %q must be an object", group.name)
		}
		entries, err := d.entries(vars)
		if err != nil {
			return nil, err
		}
		for _, v := range entries {
			value, err := d.value(v.value)
			if err != nil {
				return nil, err
			}
			if err := t.setGroup(group, v.name, value, d.at(v.key)); err != nil {
				return nil, err
			}
		}
	}
	if children != nil && children.Kind != yaml.SequenceNode {
		return nil, errorAt(d.at(children), "children of group %q must be a list of groups", group.name)
	}
	if children != nil {
		for _, item := range children.Content {
			if item.Kind != yaml.ScalarNode || item.Value == "" {
				return nil, errorAt(d.at(item), "children of group %q must be a list of groups", group.name)
			}
			if err := t.adopt(group, t.group(item.Value, d.at(item)), d.at(item)); err != nil {
				return nil, err
			}
		}
	}
	return listed, nil
}

func (t *tree) dynamicHosts(d *decoding, group *Group, node *yaml.Node) ([]*Host, error) {
	wrong := func(node *yaml.Node) error {
		return errorAt(d.at(node), "hosts of group %q must be a list of names", group.name)
	}
	if node.Kind != yaml.SequenceNode {
		return nil, wrong(node)
	}
	var hosts []*Host
	for _, item := range node.Content {
		name, err := d.value(item)
		if err != nil {
			return nil, err
		}
		text, ok := name.(string)
		if !ok || text == "" {
			return nil, wrong(item)
		}
		hosts = append(hosts, t.host(text, 0, group, mention{at: d.at(item), pattern: text, section: t.sections}))
	}
	return hosts, nil
}
