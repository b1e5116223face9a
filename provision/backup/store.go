package backup

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/provision/secrets"
)

// DefaultKeep is how many of a kind are kept.
const DefaultKeep = 5

// Store is a directory of backups.
type Store struct {
	Dir string
	// Lock is what they are encrypted with; the zero value leaves them readable, by
	// their owner only.
	Lock secrets.Lock
	// Keep is how many of a kind are kept; 0 is [DefaultKeep].
	Keep int
}

// stamp sorts as time does.
const stamp = "20060102T150405Z"

// Put keeps what is written and returns its path: "<kind>-<time>.snap", with ".age"
// where it is encrypted. If writing fails there is no file. Older ones of the kind are
// removed when there are too many.
func (s Store) Put(kind string, at time.Time, write func(io.Writer) error) (path string, err error) {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return "", fmt.Errorf("keep a backup: %w", err)
	}
	end := ".snap"
	if s.Lock.Encrypts() {
		end += ".age"
	}
	path = filepath.Join(s.Dir, kind+"-"+at.UTC().Format(stamp)+end)
	file, err := renameio.NewPendingFile(path, renameio.WithStaticPermissions(0o600))
	if err != nil {
		return "", fmt.Errorf("keep a backup: %w", err)
	}
	defer file.Cleanup() // nothing is left of one that is not complete
	sealed, err := s.Lock.Encrypt(file)
	if err != nil {
		return "", fmt.Errorf("encrypt a backup: %w", err)
	}
	if err := write(sealed); err != nil {
		return "", err
	}
	if err := sealed.Close(); err != nil {
		return "", fmt.Errorf("encrypt a backup: %w", err)
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return "", fmt.Errorf("keep a backup: %w", err)
	}
	return path, s.prune(kind)
}

// prune removes the oldest of a kind.
func (s Store) prune(kind string) error {
	entries, err := os.ReadDir(s.Dir) // sorted by name, and so by time
	if err != nil {
		return fmt.Errorf("remove old backups: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool {
		at, ok := strings.CutPrefix(e.Name(), kind+"-")
		at, _, _ = strings.Cut(at, ".")
		_, err := time.Parse(stamp, at)
		return !ok || err != nil
	})
	for _, e := range entries[:max(0, len(entries)-cmp.Or(s.Keep, DefaultKeep))] {
		if err := os.Remove(filepath.Join(s.Dir, e.Name())); err != nil {
			return fmt.Errorf("remove old backups: %w", err)
		}
	}
	return nil
}
