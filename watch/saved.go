package watch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/watch/sections"
)

// savedFormat is raised when a saved snapshot of an older mi-lb can no longer be read.
const savedFormat = 1

type savedSnapshot struct {
	Format   int       `json:"format"`
	SavedAt  time.Time `json:"savedAt"`
	Snapshot *Snapshot `json:"snapshot,omitempty"`
}

// Saver saves snapshots to a file, one after the other. It is for one goroutine at a time.
type Saver struct{ file *sections.File }

// NewSaver saves to that file, which only its owner can read unless it is there already.
func NewSaver(path string) *Saver {
	return &Saver{sections.New(path, renameio.WithPermissions(0o600), renameio.WithExistingPermissions())}
}

// Save writes the snapshot to the file, whole or not at all. Of what it shares with the
// one saved before nothing is encoded again, and it never has more than a service or an
// app in memory as text.
func (s *Saver) Save(snapshot *Snapshot, now time.Time) error {
	err := s.file.Write(func(to *sections.Writer) error {
		w := &savedWriter{to: to}
		w.snapshot(snapshot, now)
		return w.err
	})
	if err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
}

// savedWriter writes what json.Marshal would, piece by piece, until the first error.
type savedWriter struct {
	to  *sections.Writer
	err error
}

func (w *savedWriter) text(s string) {
	w.to.Text([]byte(s))
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
		w.to.Text(data[:len(data)-without])
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

// writeMap writes what never changes once it is in a part, by name: sections are copied
// fastest in one order.
func writeMap[T any](w *savedWriter, name string, all map[string]*T) {
	between := `,"` + name + `":{`
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if w.err != nil {
			return
		}
		w.text(between)
		w.value(key, 0)
		w.text(":")
		if w.err == nil {
			w.err = w.to.Section(all[key], func() ([]byte, error) { return json.Marshal(all[key]) })
		}
		between = ","
	}
	if len(all) > 0 {
		w.text("}")
	}
}

// Load reads what a [Saver] wrote, and when. Without a file the snapshot is nil and
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
