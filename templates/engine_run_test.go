package templates

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// running is an engine on the templates, kept fresh until the test ends.
func running(t testing.TB, o Options, files map[string]string) *Engine {
	t.Helper()
	o.Dir = t.TempDir()
	writeAll(t, o.Dir, files)
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { e.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return e
}

func writeAll(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
