package haproxy

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
)

// smallDisk is a file system of 256 kB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := haproxytest.Dir(t)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Fatalf("mount a small file system at %s (the tests of a full disk run as root): %v", dir, err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fillUp writes a file until nothing more fits on its disk.
func fillUp(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{4096, 64, 1} {
		block := make([]byte, size)
		for {
			if _, err := f.Write(block); err != nil {
				var failed *fs.PathError
				if !errors.As(err, &failed) || !errors.Is(failed.Err, syscall.ENOSPC) {
					t.Fatal(err)
				}
				break
			}
		}
	}
}
