package edge

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Build builds mi-lb from this checkout into the directory, so that tests never run
// an old one, and returns its path. Where the caller has the race detector, so has
// mi-lb.
func Build(ctx context.Context, dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", fmt.Errorf("build mi-lb: %w", err)
	}
	path := filepath.Join(dir, "mi-lb")
	arguments := []string{"build", "-o", path}
	if raceEnabled {
		arguments = append(arguments, "-race")
	}
	command := exec.CommandContext(ctx, "go", append(arguments, "./cmd/mi-lb")...)
	command.Dir = root
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build mi-lb: %w\n%s", err, output)
	}
	return path, nil
}

// moduleRoot is the folder of go.mod above the working directory (tests run in their
// package's folder), else above this source file.
func moduleRoot() (string, error) {
	var starts []string
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if _, file, _, ok := runtime.Caller(0); ok {
		starts = append(starts, filepath.Dir(file))
	}
	for _, dir := range starts {
		for dir != filepath.Dir(dir) {
			if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
				return dir, nil
			}
			dir = filepath.Dir(dir)
		}
	}
	return "", errors.New("no go.mod above the working directory")
}
