package watch

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/renameio/v2"
)

// savedFormat is raised when a saved snapshot of an older mi-lb can no longer be read.
const savedFormat = 1

type savedSnapshot struct {
	Format   int       `json:"format"`
	SavedAt  time.Time `json:"savedAt"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

// Save writes the snapshot to a file, whole or not at all, readable by its owner only.
// It never has more than a service or an app of it in memory as text.
func Save(path string, snapshot *Snapshot, now time.Time) error {
	file, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o600), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	defer func() { _ = file.Cleanup() }()
	w := &savedWriter{to: bufio.NewWriterSize(file, 1<<16)}
	w.snapshot(snapshot, now)
	if w.err == nil {
		w.err = w.to.Flush()
	}
	if w.err == nil {
		w.err = file.CloseAtomicallyReplace()
	}
	if w.err != nil {
		return fmt.Errorf("save snapshot: %w", w.err)
	}
	return nil
}

// savedWriter writes what json.Marshal would, piece by piece, until the first error.
type savedWriter struct {
	to  *bufio.Writer
	err error
}

func (w *savedWriter) text(s string) {
	if w.err == nil {
		_, w.err = w.to.WriteString(s)
	}
}

// open writes a value that is an object and has a field, without its end.
func (w *savedWriter) open(object any) {
	w.value(object, 1)
}

func (w *savedWriter) value(value any, without int) {
	if w.err != nil {
		return
	}
	var data []byte
	if data, w.err = json.Marshal(value); w.err == nil {
		_, w.err = w.to.Write(data[:len(data)-without])
	}
}

func (w *savedWriter) snapshot(s *Snapshot, now time.Time) {
	w.open(savedSnapshot{Format: savedFormat, SavedAt: now})
	w.text(`,"snapshot":`)
	about := *s
	about.Parts = nil
	w.open(about)
	w.text(`,"parts":[`)
	for i, part := range s.Parts {
		if i > 0 {
			w.text(",")
		}
		about := *part
		about.Services, about.Apps = nil, nil
		w.open(about)
		writeMap(w, "services", part.Services)
		writeMap(w, "apps", part.Apps)
		w.text("}")
	}
	w.text("]}}")
}

func writeMap[T any](w *savedWriter, name string, all map[string]*T) {
	between := `,"` + name + `":{`
	for key, value := range all {
		w.text(between)
		w.value(key, 0)
		w.text(":")
		w.value(value, 0)
		between = ","
	}
	if len(all) > 0 {
		w.text("}")
	}
}

// Load reads what Save wrote, and when. Without a file the snapshot is nil and
// there is no error; a file that cannot be read or makes no sense is one.
func Load(path string) (*Snapshot, time.Time, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, time.Time{}, nil
	}
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("load saved snapshot: %w", err)
	}
	return decodeSaved(path, data)
}

func decodeSaved(path string, data []byte) (*Snapshot, time.Time, error) {
	var saved savedSnapshot
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, time.Time{}, fmt.Errorf("load saved snapshot %s: %w", path, err)
	}
	if saved.Format != savedFormat || saved.Snapshot == nil {
		return nil, time.Time{}, fmt.Errorf("load saved snapshot %s: format %d, this mi-lb reads %d", path, saved.Format, savedFormat)
	}
	snapshot := &Snapshot{Revision: saved.Snapshot.Revision, Datacenter: saved.Snapshot.Datacenter, At: saved.Snapshot.At}
	for _, part := range saved.Snapshot.Parts {
		if part == nil {
			continue
		}
		for name, service := range part.Services {
			if service == nil {
				delete(part.Services, name)
			}
		}
		for id, app := range part.Apps {
			if app == nil {
				delete(part.Apps, id)
			}
		}
		snapshot = snapshot.With(part, saved.Snapshot.At)
	}
	snapshot.Revision = saved.Snapshot.Revision
	return snapshot, saved.SavedAt, nil
}
