package edge

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Domain is the one under which an edge publishes services, unless told otherwise:
// service "web" is "web.test".
const Domain = "test"

// configuration is the YAML of what the options ask for.
func (e *Edge) configuration(o Options) ([]byte, error) {
	keys := map[string]any{
		"domain":    Domain,
		"state_dir": e.StateDir,
		"listen": map[string]any{
			"http": []string{e.HTTPAddress}, "service_port_address": "127.0.0.1",
		},
		"admin": map[string]any{"listen": e.Admin},
		// What is slow on purpose in production is fast here.
		"haproxy": map[string]any{"reload_every": "200ms", "drift_every": "1s", "drain": "5s", "threads": 2},
		"log":     map[string]any{"level": "debug"},
	}
	if o.Consul != "" {
		keys["consul"] = map[string]any{"address": o.Consul}
	}
	for _, urls := range o.Marathon {
		all, _ := keys["marathon"].([]any)
		keys["marathon"] = append(all, map[string]any{"url": urls})
	}
	for _, path := range slices.Sorted(maps.Keys(o.Config)) {
		if err := put(keys, path, o.Config[path]); err != nil {
			return nil, err
		}
	}
	return yaml.Marshal(keys)
}

// put sets a key given by its path: "haproxy.drain".
func put(keys map[string]any, path string, value any) error {
	name, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		keys[name] = value
		return nil
	}
	section, ok := keys[name].(map[string]any)
	if !ok {
		if _, has := keys[name]; has {
			return fmt.Errorf("key %s is no section", name)
		}
		section = map[string]any{}
		keys[name] = section
	}
	return put(section, rest, value)
}
