package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// testserver is built once per process.
var testserver = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "testserver")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "testserver")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, "github.com/mi-lb/mi-lb/test/docker/testserver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build testserver: %w: %s", err, out)
	}
	return os.ReadFile(path)
})

// Import makes an image whose root file system is /testserver. Its command is
// that, listening on port 80; changes are lines of a Dockerfile ("EXPOSE 80",
// "ENV SERVICE_NAME=web", "HEALTHCHECK …") and may set another.
func (e *Engine) Import(ctx context.Context, name string, changes ...string) error {
	program, err := testserver()
	if err != nil {
		return err
	}
	var root bytes.Buffer
	w := tar.NewWriter(&root)
	if err := w.WriteHeader(&tar.Header{Name: "testserver", Mode: 0o755, Size: int64(len(program))}); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	if _, err := w.Write(program); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	file := filepath.Join(e.dir, "root.tar")
	if err := os.WriteFile(file, root.Bytes(), 0o600); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	arguments := []string{"import"}
	for _, change := range append([]string{`CMD ["/testserver"]`}, changes...) {
		arguments = append(arguments, "--change", change)
	}
	if _, err := e.Docker(ctx, append(arguments, file, name)...); err != nil {
		return fmt.Errorf("make image %s: %w", name, err)
	}
	return nil
}
