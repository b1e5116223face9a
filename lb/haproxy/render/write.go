package render

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/google/renameio/v2"
)

const (
	currentName  = "current"
	versionsName = "versions"
	// checkName begins with a dot, which no template's name does.
	checkName = ".check.cfg"
)

// Current is where the files in force are. The path stays the same from one
// configuration to the next: it is what haproxy.cfg calls its maps by, and what the
// runtime API knows them under.
func Current(dir string) string { return filepath.Join(dir, currentName) }

// ConfigPath is the haproxy.cfg in force.
func ConfigPath(dir string) string { return filepath.Join(Current(dir), ConfigFile) }

// Read is the files in force; an error that is fs.ErrNotExist if there are none yet.
func Read(dir string) (Files, error) {
	files, err := readAll(Current(dir))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return files, nil
}

func readAll(dir string) (Files, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := Files{}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || entry.Name() == checkName {
			continue
		}
		if files[entry.Name()], err = os.ReadFile(filepath.Join(dir, entry.Name())); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// Equal says whether both are the same files with the same content.
func (f Files) Equal(o Files) bool { return maps.EqualFunc(f, o, bytes.Equal) }

// Write puts the files in force, all at once: they go to a directory of their own,
// and the link "current" is moved to it when they are complete and on disk. What
// did not change is linked, not written. After an error, a full disk for one, the
// former files are in force and untouched.
func Write(dir string, files Files) error {
	staged, err := Stage(dir, files)
	if err != nil {
		return err
	}
	return staged.Commit()
}

// Staged are files on disk that are not in force yet.
type Staged struct {
	dir   string
	path  string
	files Files
	// same says that they are those in force.
	same bool
}

// Stage puts the files on disk beside those in force.
func Stage(dir string, files Files) (*Staged, error) {
	for name := range files {
		if name != filepath.Base(name) || name[0] == '.' {
			return nil, fmt.Errorf("write configuration to %s: %q is not the name of a file", dir, name)
		}
	}
	former, err := readAll(Current(dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration in force: %w", err)
	}
	if err == nil && former.Equal(files) {
		path, err := filepath.EvalSymlinks(Current(dir))
		if err != nil {
			return nil, fmt.Errorf("read configuration in force: %w", err)
		}
		return &Staged{dir: dir, path: path, files: files, same: true}, nil
	}
	versions := filepath.Join(dir, versionsName)
	if err := os.MkdirAll(versions, 0o700); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	known, err := versionNumbers(versions)
	if err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	next := 1
	if len(known) > 0 {
		next = known[len(known)-1] + 1
	}
	s := &Staged{dir: dir, path: filepath.Join(versions, strconv.Itoa(next)), files: files}
	if err := s.write(former); err != nil {
		return nil, errors.Join(fmt.Errorf("write configuration: %w", err), s.Discard())
	}
	return s, nil
}

func (s *Staged) write(former Files) error {
	if err := os.Mkdir(s.path, 0o700); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		path := filepath.Join(s.path, name)
		if content, ok := former[name]; ok && bytes.Equal(content, s.files[name]) {
			if os.Link(filepath.Join(Current(s.dir), name), path) == nil {
				continue
			}
			// No hard links here: a copy does as well.
		}
		if err := writeSynced(path, s.files[name]); err != nil {
			return err
		}
	}
	return syncDir(s.path)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CheckFile is a haproxy.cfg for `haproxy -c` alone: in it the names of the maps
// lead to the staged ones, not to those in force.
func (s *Staged) CheckFile() (string, error) {
	path := filepath.Join(s.path, checkName)
	content := bytes.ReplaceAll(s.files[ConfigFile], []byte(Current(s.dir)+"/"), []byte(s.path+"/"))
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("write configuration to check: %w", err)
	}
	return path, nil
}

// Commit puts the staged files in force.
func (s *Staged) Commit() error {
	if err := os.Remove(filepath.Join(s.path, checkName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("put configuration in force: %w", err)
	}
	if s.same {
		return nil
	}
	target, err := filepath.Rel(s.dir, s.path)
	if err != nil {
		return fmt.Errorf("put configuration in force: %w", err)
	}
	before, _ := os.Readlink(Current(s.dir)) // "" the first time
	if err := renameio.Symlink(target, Current(s.dir)); err != nil {
		return fmt.Errorf("put configuration in force: %w", err)
	}
	s.same = true
	if err := syncDir(s.dir); err != nil {
		return fmt.Errorf("put configuration in force: %w", err)
	}
	return s.prune(filepath.Base(target), filepath.Base(before))
}

// Discard removes the staged files, unless they are in force.
func (s *Staged) Discard() error {
	if s.same {
		err := os.Remove(filepath.Join(s.path, checkName))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := os.RemoveAll(s.path); err != nil {
		return fmt.Errorf("discard configuration: %w", err)
	}
	return nil
}

// prune keeps the version in force and the one before it.
func (s *Staged) prune(keep ...string) error {
	versions := filepath.Join(s.dir, versionsName)
	known, err := versionNumbers(versions)
	if err != nil {
		return fmt.Errorf("remove old configurations: %w", err)
	}
	for _, n := range known {
		name := strconv.Itoa(n)
		if slices.Contains(keep, name) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(versions, name)); err != nil {
			return fmt.Errorf("remove old configurations: %w", err)
		}
	}
	return nil
}

// versionNumbers are those in the directory, sorted.
func versionNumbers(dir string) ([]int, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var numbers []int
	for _, entry := range entries {
		if n, err := strconv.Atoi(entry.Name()); err == nil {
			numbers = append(numbers, n)
		}
	}
	slices.Sort(numbers)
	return numbers, nil
}
