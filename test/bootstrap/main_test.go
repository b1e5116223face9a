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
	programs.miLB = filepath.Join(dir, "mi-lb")
	command := exec.CommandContext(ctx, "go", "build", "-o", programs.miLB, "github.com/mi-lb/mi-lb/cmd/mi-lb")
	// Static: machines need not have this one's C library.
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build mi-lb: %w\n%s", err, output)
	}
	if programs.consul, err = consul.Binary(ctx); err != nil {
		return err
	}
	archives, err := standin.Pack(ctx, dir)
	if err != nil {
		return err
	}
	programs.mesos, programs.marathon = archives.Mesos, archives.Marathon
	return nil
}
