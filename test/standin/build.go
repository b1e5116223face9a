package standin

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Programs are the stand-ins, built into a directory as static programs that run on
// any machine of this architecture.
type Programs struct {
	Master, Agent, Marathon string
}

// Build builds the programs of this checkout.
func Build(ctx context.Context, dir string) (Programs, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return Programs{}, errors.New("build the stand-ins: where their source is, is not known")
	}
	command := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", dir+string(filepath.Separator), "./cmd/...")
	command.Dir = filepath.Dir(file)
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := command.CombinedOutput(); err != nil {
		return Programs{}, fmt.Errorf("build the stand-ins: %w: %s", err, out)
	}
	return Programs{
		Master: filepath.Join(dir, "mesos-master"), Agent: filepath.Join(dir, "mesos-agent"), Marathon: filepath.Join(dir, "marathon"),
	}, nil
}

// Archives are what the inventory's mesos_file and marathon_file name: archives
// laid out as Mesos installs itself and as Marathon is released.
type Archives struct {
	Mesos, Marathon string
}

// Pack builds the programs and packs them into a directory.
func Pack(ctx context.Context, dir string) (Archives, error) {
	programs, err := os.MkdirTemp(dir, "programs-")
	if err != nil {
		return Archives{}, fmt.Errorf("pack the stand-ins: %w", err)
	}
	defer os.RemoveAll(programs)
	p, err := Build(ctx, programs)
	if err != nil {
		return Archives{}, err
	}
	a := Archives{Mesos: filepath.Join(dir, "mesos-1.11.0.tar.gz"), Marathon: filepath.Join(dir, "marathon-1.11.24.tgz")}
	if err := pack(a.Mesos, map[string]string{"mesos-1.11.0/sbin/mesos-agent": p.Agent, "mesos-1.11.0/sbin/mesos-master": p.Master},
		"mesos-1.11.0/sbin/mesos-agent", "mesos-1.11.0/sbin/mesos-master"); err != nil {
		return Archives{}, err
	}
	err = pack(a.Marathon, map[string]string{"marathon-1.11.24/bin/marathon": p.Marathon}, "marathon-1.11.24/bin/marathon")
	return a, err
}

func pack(path string, files map[string]string, order ...string) (err error) {
	out, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("pack the stand-ins: %w", err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	zipped := gzip.NewWriter(out)
	archive := tar.NewWriter(zipped)
	for _, name := range order {
		file, err := os.Open(files[name])
		if err != nil {
			return fmt.Errorf("pack the stand-ins: %w", err)
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return fmt.Errorf("pack the stand-ins: %w", err)
		}
		if err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: info.Size(), Format: tar.FormatPAX}); err != nil {
			return fmt.Errorf("pack the stand-ins: %w", err)
		}
		if _, err := io.Copy(archive, file); err != nil {
			return fmt.Errorf("pack the stand-ins: %w", err)
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}
