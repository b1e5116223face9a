package render

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestWriteReplacesTheWholeSet(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before anything is written: %v", err)
	}
	sets := []Files{
		{"haproxy.cfg": []byte("1"), "a.map": []byte("a"), "b.map": nil},
		{"haproxy.cfg": []byte("2"), "a.map": []byte("a")},
		{"haproxy.cfg": []byte("2"), "a.map": []byte("A")},
		{"haproxy.cfg": []byte("2"), "a.map": []byte("A")},
		{"haproxy.cfg": []byte("3")},
	}
	for i, want := range sets {
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
		got, err := Read(dir)
		if err != nil || !got.Equal(want) {
			t.Errorf("set %d was read as %q, %v", i, got, err)
		}
	}
	versions, err := os.ReadDir(filepath.Join(dir, versionsName))
	if err != nil || len(versions) != 2 {
		t.Errorf("%d versions are kept, want that in force and the one before: %v", len(versions), err)
	}
}

func TestUnchangedFilesAreNotWritten(t *testing.T) {
	dir := t.TempDir()
	inode := func(name string) uint64 {
		info, err := os.Stat(filepath.Join(Current(dir), name))
		if err != nil {
			t.Fatal(err)
		}
		return info.Sys().(*syscall.Stat_t).Ino
	}
	if err := Write(dir, Files{"haproxy.cfg": []byte("1"), "a.map": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	config, rows := inode("haproxy.cfg"), inode("a.map")
	if err := Write(dir, Files{"haproxy.cfg": []byte("2"), "a.map": []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if inode("a.map") != rows || inode("haproxy.cfg") == config {
		t.Error("the unchanged file was written, or the changed one was not")
	}
}

func TestStagedFilesAreCheckedBeforeTheyAreInForce(t *testing.T) {
	dir := t.TempDir()
	if err := Write(dir, Files{"haproxy.cfg": []byte("old")}); err != nil {
		t.Fatal(err)
	}
	for _, files := range []Files{
		{"haproxy.cfg": []byte("map(" + Current(dir) + "/a.map)"), "a.map": []byte("new")},
		{"haproxy.cfg": []byte("old")},
	} {
		staged, err := Stage(dir, files)
		if err != nil {
			t.Fatal(err)
		}
		path, err := staged.CheckFile()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil || strings.Contains(string(content), Current(dir)) {
			t.Errorf("the file to check is %q, %v", content, err)
		}
		if err := staged.Discard(); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); err != nil || string(got["haproxy.cfg"]) != "old" {
			t.Errorf("after discarding, %q is in force, %v", got, err)
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file to check is left behind: %v", err)
		}
	}
}

// A file size limit stands for the full disk: it fails in the middle of a file.
func TestFullDiskLeavesTheFormerSetInForce(t *testing.T) {
	dir := t.TempDir()
	old := Files{"haproxy.cfg": []byte("old"), "a.map": []byte("a")}
	if err := Write(dir, old); err != nil {
		t.Fatal(err)
	}
	big := Files{"a.map": []byte("new"), "haproxy.cfg": make([]byte, 64<<20)}
	if err := withFileSizeLimit(t, 1<<20, func() error { return Write(dir, big) }); err == nil {
		t.Fatal("writing did not fail")
	}
	if got, err := Read(dir); err != nil || !got.Equal(old) {
		t.Errorf("%q is in force, %v", got, err)
	}
	if versions, err := os.ReadDir(filepath.Join(dir, versionsName)); err != nil || len(versions) != 1 {
		t.Errorf("half a set is left: %v, %v", versions, err)
	}
	if err := Write(dir, Files{"haproxy.cfg": []byte("new")}); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

func withFileSizeLimit(t *testing.T, limit uint64, do func() error) error {
	t.Helper()
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	// Go ignores the signal that goes with it.
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			t.Error(err)
		}
	}()
	return do()
}

func TestNamesOfFilesAreNotPaths(t *testing.T) {
	for _, name := range []string{"../x", "a/b", ".x"} {
		if err := Write(t.TempDir(), Files{name: nil}); err == nil {
			t.Errorf("%q is written", name)
		}
	}
}
