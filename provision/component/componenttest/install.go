package componenttest

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/desired"
)

// Install puts the directories and files of a part on this machine, as whoever runs
// the test: owners, packages, users and programs are not looked at. It returns the
// paths of files that changed. Everything must be below one of the roots.
func Install(t testing.TB, part *desired.Part, roots ...string) (changed []string) {
	t.Helper()
	within := func(path string) {
		if !slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(path, root+"/") || path == root }) {
			t.Fatalf("%s is outside of %v: the component has no variable for it, or the test does not set it", path, roots)
		}
	}
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	for _, d := range part.Directories {
		within(d.Path)
		must(os.MkdirAll(d.Path, 0o755))
		must(os.Chmod(d.Path, d.Mode))
	}
	for _, f := range part.Files {
		within(f.Path)
		found, err := os.ReadFile(f.Path)
		exists := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		switch {
		case f.Once && exists, f.Once && f.OnlyWith != "" && !emptyFolder(f.OnlyWith):
			continue
		case exists && f.Same != nil && f.Same(string(found), f.Bytes()), exists && f.Same == nil && string(found) == f.Bytes():
			continue
		}
		new := f.Path + ".new"
		must(os.MkdirAll(filepath.Dir(f.Path), 0o755))
		must(os.WriteFile(new, []byte(f.Bytes()), f.Mode))
		must(os.Chmod(new, f.Mode))
		if f.Check != "" {
			line := strings.ReplaceAll(f.Check, "%s", new)
			if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", line, err, out)
			}
		}
		must(os.Rename(new, f.Path))
		changed = append(changed, f.Path)
	}
	return changed
}

func emptyFolder(path string) bool {
	entries, err := os.ReadDir(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0
}
