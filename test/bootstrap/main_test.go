package bootstrap

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/standin"
)

// programs are what gets installed, on this machine.
var programs struct {
	miLB     string
	consul   string
	mesos    string // archive
	marathon string // archive

	testserver string // what containers run, itself
}

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "mi-lb-bootstrap-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := buildPrograms(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func buildPrograms(dir string) (err error) {
	ctx := context.Background()
	if programs.miLB, err = build(ctx, dir, "cmd/mi-lb"); err != nil {
		return err
	}
	if programs.consul, err = consul.Binary(ctx); err != nil {
		return err
	}
	archives, err := standin.Pack(ctx, dir)
	if err != nil {
		return err
	}
	if programs.testserver, err = build(ctx, dir, "test/docker/testserver"); err != nil {
		return err
	}
	programs.mesos, programs.marathon = archives.Mesos, archives.Marathon
	return nil
}

// build builds a program of this checkout and returns its path. It is static: the
// machines need not have this one's C library.
func build(ctx context.Context, dir, source string) (string, error) {
	path := filepath.Join(dir, filepath.Base(source))
	command := exec.CommandContext(ctx, "go", "build", "-ldflags=-s -w", "-o", path, "github.com/mi-lb/mi-lb/"+source)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", source, err, output)
	}
	return path, nil
}
