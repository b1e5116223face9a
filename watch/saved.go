package watch

import (
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
	Snapshot *Snapshot `json:"snapshot"`
}

// Save writes the snapshot to a file, whole or not at all, readable by its owner only.
func Save(path string, snapshot *Snapshot, now time.Time) error {
	data, err := json.Marshal(savedSnapshot{Format: savedFormat, SavedAt: now, Snapshot: snapshot})
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("save snapshot: %w", err)
	}
	return nil
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
