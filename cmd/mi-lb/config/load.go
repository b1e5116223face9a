package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
	"go.yaml.in/yaml/v3"
)

// Error is a mistake in the configuration, for the operator to mend.
type Error struct {
	// Where is "file:line", "flag --x" or "environment MI_LB_X"; empty if unknown.
	Where string
	// Key is the full path of the key, empty where it is about the whole.
	Key     string
	Message string
}

func (e *Error) Error() string {
	var parts []string
	if e.Where != "" {
		parts = append(parts, e.Where)
	}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	return strings.Join(append(parts, e.Message), ": ")
}

// AddFlags adds a flag for every key.
func AddFlags(flags *pflag.FlagSet) {
	for _, key := range Keys() {
		switch value := key.Default.(type) {
		case bool:
			flags.Bool(key.Path, value, key.Help)
		case int:
			flags.Int(key.Path, value, key.Help)
		case time.Duration:
			flags.Duration(key.Path, value, key.Help)
		case []string:
			flags.StringSlice(key.Path, value, key.Help)
		case string:
			flags.String(key.Path, value, key.Help)
		default:
			flags.String(key.Path, "", key.Help)
		}
	}
}

// Load reads the file (none if the path is empty), the environment and the flags,
// which may be nil, in rising order of precedence, and validates the whole. Mistakes
// come as one or several *Error, joined.
func Load(path string, flags *pflag.FlagSet) (Config, error) {
	var data []byte
	if path != "" {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return Config{}, &Error{Where: path, Message: fmt.Sprintf("cannot be read: %v", errors.Unwrap(err))}
		}
	}
	return load(path, data, flags)
}

func load(path string, data []byte, flags *pflag.FlagSet) (Config, error) {
	lines, err := checkKeys(path, data)
	if err != nil {
		return Config{}, err
	}
	v := viper.New()
	v.SetConfigType("yaml")
	v.SetEnvPrefix(EnvPrefix)
	v.SetEnvKeyReplacer(strings.NewReplacer(".", "_"))
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return Config{}, &Error{Where: path, Message: err.Error()}
	}
	r := reader{v: v, path: path, flags: flags, lines: lines}
	config := Default()
	r.read(reflect.ValueOf(&config).Elem(), "")
	if len(r.errs) > 0 {
		return Config{}, errors.Join(r.errs...)
	}
	if errs := validate(config, r.where); len(errs) > 0 {
		return Config{}, errors.Join(errs...)
	}
	return config, nil
}

type reader struct {
	v     *viper.Viper
	path  string
	flags *pflag.FlagSet
	lines map[string]int
	errs  []error
}

// read fills the struct from viper, key by key, so that a mistake is known by its key.
func (r *reader) read(value reflect.Value, prefix string) {
	for i := range value.NumField() {
		field := value.Type().Field(i)
		key := prefix + field.Tag.Get("key")
		if field.Type.Kind() == reflect.Struct {
			r.read(value.Field(i), key+".")
			continue
		}
		if err := r.v.BindEnv(key); err != nil {
			r.fail(key, err.Error())
			continue
		}
		if r.flags != nil {
			if flag := r.flags.Lookup(key); flag != nil && flag.Changed {
				if err := r.v.BindPFlag(key, flag); err != nil {
					r.fail(key, err.Error())
					continue
				}
			}
		}
		if !r.v.IsSet(key) {
			continue
		}
		if err := decode(r.v.Get(key), value.Field(i)); err != nil {
			r.fail(key, err.Error())
		}
	}
}

// decode converts what YAML, a flag or the environment gave. Nothing is converted
// that a person would not: a number is no string, "yes" no duration.
func decode(given any, into reflect.Value) error {
	if text, ok := given.(string); ok && into.Type() == marathonType {
		var list any
		if err := yaml.Unmarshal([]byte(text), &list); err != nil {
			return fmt.Errorf("is not YAML: %w", err)
		}
		if err := checkMarathon(list); err != nil {
			return err
		}
		given = list
	}
	if given == nil {
		return nil // "key:" without a value leaves the default
	}
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		TagName: "key", ErrorUnused: true, Result: into.Addr().Interface(), ZeroFields: true,
		DecodeHook: mapstructure.ComposeDecodeHookFunc(durationHook, scalarHook),
	})
	if err != nil {
		return err
	}
	if err := decoder.Decode(given); err != nil {
		return errors.New(plain(err, given, into.Type()))
	}
	return nil
}

func durationHook(from, to reflect.Type, given any) (any, error) {
	if to != durationType || from == durationType {
		return given, nil
	}
	text, ok := given.(string)
	if !ok {
		return nil, errors.New("no unit")
	}
	return time.ParseDuration(text)
}

// scalarHook turns the environment's strings into what the field wants, and one
// string into a list of those between its commas.
func scalarHook(from, to reflect.Type, given any) (any, error) {
	text, ok := given.(string)
	if !ok {
		return given, nil
	}
	switch {
	case to == stringsType:
		var all []string
		for part := range strings.SplitSeq(text, ",") {
			if part = strings.TrimSpace(part); part != "" {
				all = append(all, part)
			}
		}
		return all, nil
	case to.Kind() == reflect.Bool:
		switch strings.ToLower(text) {
		case "true", "yes", "on", "1":
			return true, nil
		case "false", "no", "off", "0":
			return false, nil
		}
		return nil, errors.New("neither")
	case to.Kind() == reflect.Int:
		var n int
		if err := yaml.Unmarshal([]byte(text), &n); err != nil {
			return nil, errors.New("no number")
		}
		return n, nil
	}
	return given, nil
}

// plain says what was expected, in words of the configuration rather than of Go.
func plain(err error, given any, to reflect.Type) string {
	wanted := map[reflect.Type]string{
		durationType: `a duration with its unit, like "30s"`,
		stringsType:  "a list of strings",
		marathonType: "a list of Marathon clusters",
	}[to]
	switch {
	case wanted != "":
	case to.Kind() == reflect.Bool:
		wanted = "true or false"
	case to.Kind() == reflect.Int:
		wanted = "a whole number"
	default:
		wanted = "a string"
	}
	if to == marathonType {
		return fmt.Sprintf("is not %s: %v", wanted, err)
	}
	return fmt.Sprintf("%v is not %s", quoted(given), wanted)
}

func quoted(v any) string {
	if s, ok := v.(string); ok {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprint(v)
}

func (r *reader) fail(key, message string) {
	r.errs = append(r.errs, &Error{Where: r.where(key), Key: key, Message: message})
}

// where says which of the three the key's value is from.
func (r *reader) where(key string) string {
	if r.flags != nil {
		if flag := r.flags.Lookup(key); flag != nil && flag.Changed {
			return "flag --" + key
		}
	}
	if env := (Key{Path: key}).Env(); os.Getenv(env) != "" {
		return "environment " + env
	}
	if line, ok := r.lines[key]; ok {
		return fmt.Sprintf("%s:%d", r.path, line)
	}
	return r.path
}

// checkKeys finds keys that do not exist, and remembers the lines of those that do.
func checkKeys(path string, data []byte) (map[string]int, error) {
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, &Error{Where: path, Message: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	c := keyChecker{path: path, lines: map[string]int{}, known: known(Keys())}
	if len(document.Content) > 0 && document.Content[0].Tag != "!!null" {
		c.mapping(document.Content[0], "")
	}
	return c.lines, errors.Join(c.errs...)
}

type keyChecker struct {
	path  string
	lines map[string]int
	known []string
	errs  []error
}

// known are the keys and the sections that they are in.
func known(keys []Key) []string {
	var all []string
	for _, key := range keys {
		parts := strings.Split(key.Path, ".")
		for i := range parts {
			all = append(all, strings.Join(parts[:i+1], "."))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func (c *keyChecker) fail(node *yaml.Node, key, message string) {
	c.errs = append(c.errs, &Error{Where: fmt.Sprintf("%s:%d", c.path, node.Line), Key: key, Message: message})
}

func (c *keyChecker) mapping(node *yaml.Node, prefix string) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	if node.Kind != yaml.MappingNode {
		if node.Tag != "!!null" {
			c.fail(node, strings.TrimSuffix(prefix, "."), "is not a section with keys of its own")
		}
		return
	}
	for i := 0; i+1 < len(node.Content); i += 2 {
		name, value := node.Content[i], node.Content[i+1]
		key := prefix + name.Value
		if !slices.Contains(c.known, key) {
			c.fail(name, key, unknown(key, c.known))
			continue
		}
		if line, twice := c.lines[key]; twice {
			c.fail(name, key, fmt.Sprintf("is there twice; the first is on line %d", line))
			continue
		}
		c.lines[key] = name.Line
		switch {
		case key == "marathon":
			c.marathon(value)
		case slices.ContainsFunc(c.known, func(k string) bool { return strings.HasPrefix(k, key+".") }):
			c.mapping(value, key+".")
		}
	}
}

func (c *keyChecker) marathon(node *yaml.Node) {
	if node.Kind != yaml.SequenceNode {
		if node.Tag != "!!null" {
			c.fail(node, "marathon", "is not a list; write one \"- url: [...]\" for each cluster")
		}
		return
	}
	keys := known(MarathonKeys())
	for _, cluster := range node.Content {
		if cluster.Kind != yaml.MappingNode {
			c.fail(cluster, "marathon", "has an element that is no cluster; write \"- url: [...]\"")
			continue
		}
		for i := 0; i+1 < len(cluster.Content); i += 2 {
			if name := cluster.Content[i]; !slices.Contains(keys, name.Value) {
				c.fail(name, "marathon."+name.Value, unknown(name.Value, keys))
			}
		}
	}
}

func unknown(key string, known []string) string {
	if near := nearest(key, known); near != "" {
		return fmt.Sprintf("there is no such key; did you mean %q?", near)
	}
	return "there is no such key; docs/configuration.md lists them all"
}

// checkMarathon does for a flag or variable what keyChecker does for a file.
func checkMarathon(list any) error {
	clusters, ok := list.([]any)
	if !ok {
		return errors.New("is not a list of Marathon clusters")
	}
	keys := known(MarathonKeys())
	for _, cluster := range clusters {
		fields, ok := cluster.(map[string]any)
		if !ok {
			return errors.New("has an element that is no cluster")
		}
		for name := range fields {
			if !slices.Contains(keys, name) {
				return fmt.Errorf("%s: %s", name, unknown(name, keys))
			}
		}
	}
	return nil
}
