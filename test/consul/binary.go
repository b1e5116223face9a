package consul

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
)

// oldest is the oldest Consul that mi-lb supports.
var oldest = [2]int{1, 16}

var versionLine = regexp.MustCompile(`Consul v(\d+)\.(\d+)`)

// Binary is the path of the consul to run: the one on PATH where it is 1.16 or
// newer, else bin/consul of this module.
func Binary(ctx context.Context) (string, error) {
	var reasons []error
	if path, err := exec.LookPath("consul"); err != nil {
		reasons = append(reasons, errors.New("no consul on PATH"))
	} else if err := recent(ctx, path); err != nil {
		reasons = append(reasons, err)
	} else {
		return path, nil
	}
	root, err := moduleRoot()
	if err != nil {
		reasons = append(reasons, err)
	} else {
		path := filepath.Join(root, "bin", "consul")
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		reasons = append(reasons, fmt.Errorf("no %s", path))
	}
	return "", fmt.Errorf("find Consul: %w; run \"make tools\" to build it, or install consul %d.%d or newer",
		errors.Join(reasons...), oldest[0], oldest[1])
}

func recent(ctx context.Context, path string) error {
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return fmt.Errorf("ask %s for its version: %w", path, err)
	}
	found := versionLine.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("%s does not say its version", path)
	}
	major, _ := strconv.Atoi(string(found[1]))
	minor, _ := strconv.Atoi(string(found[2]))
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return fmt.Errorf("%s is version %d.%d, too old", path, major, minor)
	}
	return nil
}

// moduleRoot is the folder of go.mod above the working directory (tests run in
// their package's folder), else above this source file.
func moduleRoot() (string, error) {
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				return dir, nil
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", errors.New("no go.mod above the working directory")
}
