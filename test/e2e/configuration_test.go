package e2e

import (
	"bytes"
	"context"
	"os/exec"
	"testing"

	"github.com/mi-lb/mi-lb/test/child"
	"github.com/mi-lb/mi-lb/test/edge"
)

func TestWrongConfigurationIsNamedWithItsLineAndTheNearestKey(t *testing.T) {
	t.Parallel()
	e := newEdge(t, edge.Options{Consul: "http://127.0.0.1:1"})
	for _, c := range []struct {
		name, text string
		says       []string
	}{
		{"an unknown key", "domain: test\nconsul:\n  adress: http://127.0.0.1:8500\n", []string{e.ConfigFile + ":3", "consul.adress", "consul.address"}},
		{"an unknown section", "domain: test\nhaprox:\n  drain: 1s\n", []string{e.ConfigFile + ":2", "haprox", "haproxy"}},
		{"a value of the wrong kind", "domain: test\nhaproxy:\n  threads: 2\n  drain: soon\n", []string{e.ConfigFile + ":4", "haproxy.drain", "soon"}},
		{"a value that is not allowed", "domain: test\nexposure: everything\n", []string{e.ConfigFile + ":2", "exposure", "tagged"}},
		{"a key of a cluster", "marathon:\n  - url: [http://127.0.0.1:8080]\n    user: x\n", []string{e.ConfigFile + ":3", "marathon", "user", "username"}},
		{"no YAML", "domain: [test\n", []string{e.ConfigFile}},
	} {
		t.Run(c.name, func(t *testing.T) {
			e.Write(c.text)
			ctx, cancel := context.WithTimeout(t.Context(), edge.Patience)
			defer cancel()
			command := exec.CommandContext(ctx, binary, "serve", "--config", e.ConfigFile)
			command.Env = child.Environment()
			output, err := command.CombinedOutput()
			if command.ProcessState == nil || command.ProcessState.ExitCode() != 2 {
				t.Errorf("it ended with %v", err)
			}
			for _, text := range c.says {
				if !bytes.Contains(output, []byte(text)) {
					t.Errorf("it does not say %q: %s", text, output)
				}
			}
			t.Logf("%s", output)
		})
	}
}
