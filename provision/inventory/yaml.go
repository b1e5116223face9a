package inventory

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// parseDocument reads the one document of a YAML or JSON file. nil without an
// error is an empty file.
func parseDocument(file string, data []byte) (*yaml.Node, error) {
	// JSON first: it may be indented with tabs, which YAML refuses.
	if trimmed := bytes.TrimSpace(data); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		if node, err := parseJSON(data); err == nil {
			return node, nil
		}
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document yaml.Node
	if err := decodeYAML(decoder, &document); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, yamlError(file, err)
	}
	var more yaml.Node
	if err := decodeYAML(decoder, &more); err == nil && !(len(more.Content) == 1 && more.Content[0].Tag == "!!null") {
		return nil, errorAt(Position{file, more.Line}, "a second YAML document begins here; one file holds one")
	} else if err != nil && !errors.Is(err, io.EOF) {
		return nil, yamlError(file, err)
	}
	if len(document.Content) == 0 {
		return nil, nil
	}
	return document.Content[0], nil
}

// decodeYAML keeps a panic of the YAML library, should there be one, from being
// the end of the program: files come from outside.
func decodeYAML(decoder *yaml.Decoder, node *yaml.Node) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("yaml: %v", p)
		}
	}()
	return decoder.Decode(node)
}

var yamlLine = regexp.MustCompile(`^yaml: (?:(?:unmarshal errors:\s*)?line (\d+): )?`)

func yamlError(file string, err error) error {
	text := err.Error()
	at := Position{File: file, Line: 1}
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.Line = n
		}
		text = text[len(m[0]):]
	}
	return errorAt(at, "it is no valid YAML: %s", text)
}

// parseJSON reads JSON into the nodes of YAML, which know their lines.
func parseJSON(data []byte) (*yaml.Node, error) {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	r := &jsonReader{decoder: decoder, data: data}
	node, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is something after the end")
	}
	return node, nil
}

type jsonReader struct {
	decoder *json.Decoder
	data    []byte
	seen    int // offset up to which lines were counted
	lines   int
}

func (r *jsonReader) line() int {
	offset := int(r.decoder.InputOffset())
	r.lines += bytes.Count(r.data[r.seen:offset], []byte("\n"))
	r.seen = offset
	return r.lines + 1
}

func (r *jsonReader) value(depth int) (*yaml.Node, error) {
	if depth > deepestDocument {
		return nil, errors.New("it is nested too deeply")
	}
	token, err := r.decoder.Token()
	if err != nil {
		return nil, err
	}
	node := &yaml.Node{Kind: yaml.ScalarNode, Line: r.line()}
	switch t := token.(type) {
	case json.Delim:
		node.Kind = yaml.SequenceNode
		if t == '{' {
			node.Kind = yaml.MappingNode
		}
		for r.decoder.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			node.Content = append(node.Content, item)
		}
		_, err := r.decoder.Token()
		return node, err
	case string:
		node.Style, node.Value = yaml.DoubleQuotedStyle, t
	case json.Number:
		node.Value = t.String()
		if strings.ContainsAny(node.Value, ".eE") {
			f, err := t.Float64()
			if err != nil {
				return nil, err
			}
			node.Tag, node.Style, node.Value = "!!float", yaml.TaggedStyle, strconv.FormatFloat(f, 'g', -1, 64)
		}
	case bool:
		node.Value = strconv.FormatBool(t)
	case nil:
		node.Value = "null"
	}
	return node, nil
}

const (
	// deepestDocument is more than anybody nests, and far from exhausting the stack.
	deepestDocument = 500
	// mostNodes bounds what aliases can blow a file up to.
	mostNodes = 500_000
)

// decoding turns nodes into values, as PyYAML does: by the rules of YAML 1.1.
type decoding struct {
	file    string
	keyring *Keyring
	nodes   int
	depth   int
	odd     []Finding
}

func (d *decoding) at(node *yaml.Node) Position { return Position{d.file, node.Line} }

// enter follows aliases and refuses documents without end.
func (d *decoding) enter(node *yaml.Node) (*yaml.Node, error) {
	d.nodes++
	d.depth++
	if d.nodes > mostNodes || d.depth > deepestDocument {
		return nil, errorAt(d.at(node), "the document is nested too deeply, or its aliases unfold to more than %d values", mostNodes)
	}
	for n := 0; node.Kind == yaml.AliasNode; n++ {
		if node.Alias == nil || n > deepestDocument {
			return nil, errorAt(d.at(node), "the alias leads nowhere")
		}
		node = node.Alias
	}
	return node, nil
}

func (d *decoding) leave() { d.depth-- }

// value is the node's value.
func (d *decoding) value(node *yaml.Node) (any, error) {
	node, err := d.enter(node)
	defer d.leave()
	if err != nil {
		return nil, err
	}
	switch node.Kind {
	case yaml.ScalarNode:
		return d.scalar(node)
	case yaml.SequenceNode:
		items := make([]any, 0, len(node.Content))
		for _, item := range node.Content {
			value, err := d.value(item)
			if err != nil {
				return nil, err
			}
			items = append(items, value)
		}
		if node.Tag == "!unsafe" {
			return verbatim(items), nil
		}
		return items, nil
	case yaml.MappingNode:
		entries, err := d.entries(node)
		if err != nil {
			return nil, err
		}
		// AnsibleJSONEncoder writes encrypted values like this.
		if len(entries) == 1 && entries[0].name == "__ansible_vault" {
			if text, ok := entries[0].value.Value, entries[0].value.Kind == yaml.ScalarNode; ok {
				return &Encrypted{ciphertext: text, keyring: d.keyring}, nil
			}
		}
		values := make(map[string]any, len(entries))
		for _, entry := range entries {
			value, err := d.value(entry.value)
			if err != nil {
				return nil, err
			}
			values[entry.name] = value
		}
		if node.Tag == "!unsafe" {
			return verbatim(values), nil
		}
		return values, nil
	}
	return nil, errorAt(d.at(node), "the value is neither a scalar, a list nor a mapping")
}

func verbatim(value any) any {
	switch v := value.(type) {
	case string:
		return Verbatim(v)
	case []any:
		for i := range v {
			v[i] = verbatim(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = verbatim(v[key])
		}
	}
	return value
}

// entry is one key of a mapping.
type entry struct {
	name  string
	text  bool // the key is a string in YAML, too
	key   *yaml.Node
	value *yaml.Node
}

// entries are the keys of a mapping in order, with merged ones ("<<") and without
// those that are given again later, which are odd.
func (d *decoding) entries(node *yaml.Node) ([]entry, error) {
	var merged, own []entry
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind == yaml.ScalarNode && key.Style == 0 && key.Value == "<<" {
			more, err := d.merge(value)
			if err != nil {
				return nil, err
			}
			merged = append(merged, more...)
			continue
		}
		decoded, err := d.value(key)
		if err != nil {
			return nil, err
		}
		name, ok := keyName(decoded)
		if !ok {
			return nil, errorAt(d.at(key), "a list or mapping cannot be a key")
		}
		_, text := decoded.(string)
		own = append(own, entry{name, text, key, value})
	}
	all := make([]entry, 0, len(merged)+len(own))
	index := map[string]int{}
	for i, e := range append(merged, own...) {
		if j, ok := index[e.name]; ok {
			if i >= len(merged) && j >= 0 && all[j].key.Line != e.key.Line && i-len(merged) < len(own) && contains(own[:i-len(merged)], e.name) {
				d.odd = append(d.odd, Finding{Odd, "key-given-twice", d.at(e.key), fmt.Sprintf("the key %q was given before, in line %d; the last one counts", e.name, all[j].key.Line)})
			}
			all[j] = e
			continue
		}
		index[e.name] = len(all)
		all = append(all, e)
	}
	return all, nil
}

func contains(entries []entry, name string) bool {
	for _, e := range entries {
		if e.name == name {
			return true
		}
	}
	return false
}

// merge is what "<<" adds: the keys of a mapping, or of several, the first of
// which wins.
func (d *decoding) merge(node *yaml.Node) ([]entry, error) {
	node, err := d.enter(node)
	defer d.leave()
	if err != nil {
		return nil, err
	}
	switch node.Kind {
	case yaml.MappingNode:
		return d.entries(node)
	case yaml.SequenceNode:
		var all []entry
		for i := len(node.Content) - 1; i >= 0; i-- {
			more, err := d.merge(node.Content[i])
			if err != nil {
				return nil, err
			}
			all = append(all, more...)
		}
		return all, nil
	}
	return nil, errorAt(d.at(node), "<< merges mappings, and this is none")
}

func (d *decoding) scalar(node *yaml.Node) (any, error) {
	switch node.Tag {
	case "!vault", "!vault-encrypted":
		return &Encrypted{ciphertext: node.Value, keyring: d.keyring}, nil
	case "!unsafe":
		return Verbatim(node.Value), nil
	}
	plain := node.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	if node.Style&yaml.TaggedStyle == 0 {
		if strings.HasPrefix(node.Tag, "!") && !strings.HasPrefix(node.Tag, "!!") {
			return nil, errorAt(d.at(node), "the tag %s is unknown", node.Tag)
		}
		if plain {
			return yaml11(node.Value), nil
		}
		return node.Value, nil
	}
	switch node.ShortTag() {
	case "!!str", "!":
		return node.Value, nil
	case "!!null":
		return nil, nil
	case "!!int", "!!float", "!!bool":
		value := yaml11(node.Value)
		if f, err := strconv.ParseFloat(strings.ReplaceAll(node.Value, "_", ""), 64); err == nil && node.ShortTag() == "!!float" {
			return f, nil
		}
		if _, ok := value.(string); !ok {
			return value, nil
		}
		return nil, errorAt(d.at(node), "%q is no %s", node.Value, strings.TrimPrefix(node.ShortTag(), "!!"))
	case "!!binary":
		data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(node.Value), ""))
		if err != nil {
			return nil, errorAt(d.at(node), "it is no valid base64: %v", err)
		}
		return string(data), nil
	case "!!timestamp":
		return node.Value, nil
	}
	return nil, errorAt(d.at(node), "the tag %s is unknown", node.Tag)
}

var (
	int11   = regexp.MustCompile(`^(?:[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+)$`)
	float11 = regexp.MustCompile(`^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$`)
)

// yaml11 is the value of a plain scalar by YAML 1.1, where yes is true, 010 is
// eight and 1:30 is ninety. Dates stay strings.
func yaml11(s string) any {
	switch s {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false
	}
	switch {
	case int11.MatchString(s):
		if n, ok := yamlInt(strings.ReplaceAll(s, "_", "")); ok {
			return n
		}
	case float11.MatchString(s):
		return yamlFloat(strings.ToLower(strings.ReplaceAll(s, "_", "")))
	}
	return s
}

func yamlInt(s string) (any, bool) {
	negative := strings.HasPrefix(s, "-")
	s = strings.TrimLeft(s, "+-")
	n := new(big.Int)
	ok := true
	switch {
	case strings.Contains(s, ":"):
		for _, part := range strings.Split(s, ":") {
			digit, good := new(big.Int).SetString(part, 10)
			if !good {
				return nil, false
			}
			n.Add(n.Mul(n, big.NewInt(60)), digit)
		}
	case strings.HasPrefix(s, "0b"), strings.HasPrefix(s, "0x"):
		n, ok = n.SetString(s, 0)
	case len(s) > 1 && s[0] == '0':
		n, ok = n.SetString(s, 8)
	default:
		n, ok = n.SetString(s, 10)
	}
	if !ok {
		return nil, false
	}
	if negative {
		n.Neg(n)
	}
	return shrink(n), true
}

func yamlFloat(s string) any {
	sign := 1.0
	if strings.HasPrefix(s, "-") {
		sign = -1
	}
	s = strings.TrimLeft(s, "+-")
	switch s {
	case ".inf":
		return math.Inf(int(sign))
	case ".nan":
		return math.NaN()
	}
	value := 0.0
	for _, part := range strings.Split(s, ":") {
		f, err := strconv.ParseFloat(part, 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return s
		}
		value = value*60 + f
	}
	return sign * value
}
