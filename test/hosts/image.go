package hosts

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// build makes the root file system of a machine; start is what runs as its first
// process, before systemd.
var (
	//go:embed image/build
	build string
	//go:embed image/start
	start string
)

// cacheDirectory is where the root file system and packages are kept.
func cacheDirectory() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "mi-lb", "hosts")
	return dir, os.MkdirAll(dir, 0o755)
}

// image is the archive of a machine's root file system, made if the cache has none
// that was made of the same.
func image(ctx context.Context, cache string, sources aptSources, proxy string, packages []string) (string, error) {
	sum := sha256.New()
	for _, part := range append([]string{build, start, sources.text}, packages...) {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	path := filepath.Join(cache, "root-"+hex.EncodeToString(sum.Sum(nil))[:16]+".tar")
	unlock, err := lock(path + ".lock")
	if err != nil {
		return "", fmt.Errorf("make the machines' image: %w", err)
	}
	defer unlock()
	if _, err := os.Stat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	if _, err := exec.LookPath("debootstrap"); err != nil {
		return "", fmt.Errorf("make the machines' image: %w; on Debian: apt-get install debootstrap", err)
	}
	dir, err := os.MkdirTemp(cache, "root-")
	if err != nil {
		return "", fmt.Errorf("make the machines' image: %w", err)
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"build": build, "start": start, sources.name: sources.text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			return "", fmt.Errorf("make the machines' image: %w", err)
		}
	}
	arguments := append([]string{filepath.Join(dir, "build"), dir, sources.mirror, sources.name}, packages...)
	command := exec.CommandContext(ctx, "/bin/sh", arguments...)
	command.Env = append(os.Environ(), "http_proxy="+proxy, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	if output, err := command.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make the machines' image: %w\n%s", err, output[max(0, len(output)-4096):])
	}
	if err := os.Rename(filepath.Join(dir, "root.tar"), path); err != nil {
		return "", fmt.Errorf("make the machines' image: %w", err)
	}
	removeOld(cache, path)
	return path, nil
}

// removeOld removes images that have not been the one for a while; others may
// still be read by tests that run now.
func removeOld(cache, path string) {
	files, _ := filepath.Glob(filepath.Join(cache, "root-*"))
	for _, file := range files {
		info, err := os.Stat(file)
		if err == nil && !strings.HasPrefix(file, path) && time.Since(info.ModTime()) > 24*time.Hour {
			_ = os.RemoveAll(file)
		}
	}
}

// aptSources are where packages come from.
type aptSources struct {
	name   string   // of the file, which says its format
	text   string   // what is in it
	mirror string   // the first one
	hosts  []string // of all
}

// readSources reads those of this machine, of which only Debian's own count: in
// deb822 or one-line format, as Debian 12's installers write them.
func readSources() (aptSources, error) {
	for _, path := range []string{"/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"} {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return aptSources{}, err
		}
		s := aptSources{name: filepath.Base(path), text: string(text)}
		for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
			if strings.HasPrefix(strings.TrimSpace(lines.Text()), "#") {
				continue
			}
			for _, word := range strings.Fields(lines.Text()) {
				u, err := url.Parse(word)
				if err != nil || u.Scheme != "http" || u.Host == "" {
					continue
				}
				if s.mirror == "" {
					s.mirror = word
				}
				if !slices.Contains(s.hosts, u.Host) {
					s.hosts = append(s.hosts, u.Host)
				}
			}
		}
		if s.mirror != "" {
			return s, nil
		}
	}
	return aptSources{}, errors.New("neither /etc/apt/sources.list.d/debian.sources nor /etc/apt/sources.list has a source of Debian's packages with http://")
}

// lock waits until no other process has the file's lock.
func lock(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX); err != nil {
		file.Close()
		return nil, err
	}
	return func() { file.Close() }, nil
}
