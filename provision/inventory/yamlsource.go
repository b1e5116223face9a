package inventory

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// readYAML adds a YAML inventory to the tree: groups, each with hosts, vars and children.
func (t *tree) readYAML(file string, root *yaml.Node) error {
	d := &decoding{file: file, keyring: t.keyring}
	defer func() { t.findings = append(t.findings, d.odd...) }()
	if root == nil {
		return errorAt(Position{file, 1}, "the file is empty")
	}
	root, err := d.enter(root)
	if err != nil {
		return err
	}
	if root.Kind != yaml.MappingNode {
		return errorAt(d.at(root), "an inventory is a mapping of groups, and this is none")
	}
	groups, err := d.entries(root)
	if err != nil {
		return err
	}
	for _, g := range groups {
		if g.name == "plugin" && g.value.Kind == yaml.ScalarNode {
			return errorAt(d.at(g.key), "this configures the inventory plugin %q of Ansible, which mi-lb cannot run; save what ansible-inventory --list prints and use that", g.value.Value)
		}
	}
	for _, g := range groups {
		if _, err := t.yamlGroup(d, g); err != nil {
			return err
		}
	}
	return nil
}

// isNothing says whether a node is null.
func isNothing(node *yaml.Node) bool {
	return node.Kind == yaml.ScalarNode && node.Style == 0 && yaml11(node.Value) == nil
}

// yamlGroup adds one group; nil without an error is one that was refused.
func (t *tree) yamlGroup(d *decoding, e entry) (*Group, error) {
	node, err := d.enter(e.value)
	defer d.leave()
	if err != nil {
		return nil, err
	}
	if node.Kind != yaml.MappingNode && !isNothing(node) {
		t.refuse(d.at(e.key), "no-group", "%q is no group: a group is a mapping with hosts, vars and children, or empty", e.name)
		return nil, nil
	}
	if !e.text || e.name == "" {
		return nil, errorAt(d.at(e.key), "the name of group %s must be a string; put quotes around it", e.name)
	}
	group := t.group(e.name, d.at(e.key))
	if group.at.File == "" {
		group.at = d.at(e.key)
	}
	if node.Kind != yaml.MappingNode {
		return group, nil
	}
	sections, err := d.entries(node)
	if err != nil {
		return nil, err
	}
	for _, section := range sections {
		contents, ok, err := t.yamlSection(d, group, section)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		t.sections++
		for _, item := range contents {
			switch section.name {
			case "vars":
				value, err := d.value(item.value)
				if err != nil {
					return nil, err
				}
				if err := t.setGroup(group, item.name, value, d.at(item.key)); err != nil {
					return nil, err
				}
			case "children":
				child, err := t.yamlGroup(d, item)
				if err != nil {
					return nil, err
				}
				if child == nil {
					continue
				}
				if err := t.adopt(group, child, d.at(item.key)); err != nil {
					return nil, err
				}
			case "hosts":
				if err := t.yamlHosts(d, group, item); err != nil {
					return nil, err
				}
			}
		}
	}
	return group, nil
}

// yamlSection is what hosts, vars or children hold; ok is false where that is nothing.
func (t *tree) yamlSection(d *decoding, group *Group, section entry) (contents []entry, ok bool, err error) {
	node, err := d.enter(section.value)
	defer d.leave()
	if err != nil {
		return nil, false, err
	}
	known := section.name == "hosts" || section.name == "vars" || section.name == "children"
	switch {
	case isNothing(node):
		return nil, false, nil
	case !known:
		t.refuse(d.at(section.key), "unknown-key", "%q in group %q is none of hosts, vars, children; a child group belongs below children", section.name, group.name)
		return nil, false, nil
	case node.Kind == yaml.ScalarNode:
		// One name is short for a mapping with that key.
		name, err := d.value(node)
		if err != nil {
			return nil, false, err
		}
		text, isText := name.(string)
		if !isText {
			return nil, false, errorAt(d.at(node), "%s of group %q must be a mapping", section.name, group.name)
		}
		return []entry{{name: text, text: true, key: node, value: &yaml.Node{Kind: yaml.ScalarNode, Line: node.Line}}}, true, nil
	case node.Kind != yaml.MappingNode:
		return nil, false, errorAt(d.at(node), "%s of group %q must be a mapping, one key per %s, not a list", section.name, group.name, strings.TrimSuffix(section.name, "s"))
	}
	contents, err = d.entries(node)
	return contents, err == nil, err
}

func (t *tree) yamlHosts(d *decoding, group *Group, item entry) error {
	at := d.at(item.key)
	if !item.text {
		return errorAt(at, "the name of host %s must be a string; put quotes around it", item.name)
	}
	names, port, err := expandPattern(item.name)
	if err != nil {
		return errorAt(at, "host pattern %v", err)
	}
	node, err := d.enter(item.value)
	defer d.leave()
	if err != nil {
		return err
	}
	var entries []entry
	switch {
	case isNothing(node):
	case node.Kind != yaml.MappingNode:
		return errorAt(d.at(node), "the variables of host %q must be a mapping", item.name)
	default:
		if entries, err = d.entries(node); err != nil {
			return err
		}
	}
	values := make([]any, len(entries))
	for i, e := range entries {
		if values[i], err = d.value(e.value); err != nil {
			return err
		}
	}
	for _, name := range names {
		host := t.host(name, port, group, mention{at: at, pattern: item.name, section: t.sections})
		for i, e := range entries {
			t.set("host "+name, host.vars, e.name, values[i], d.at(e.key))
		}
	}
	return nil
}
