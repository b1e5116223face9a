package haproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// saved is what a driver leaves to the next one: enough to take over a running
// HAProxy without a reload.
type saved struct {
	// Generation of the files, which the running HAProxy gives as its description if
	// it has read them.
	Generation string `json:"generation"`
	// Reloading: the files were put in force for HAProxy to read them, and whether it
	// has is not known.
	Reloading bool `json:"reloading,omitempty"`
	// Table that the files say.
	Table  *routing.Table `json:"table"`
	Claims routing.Claims `json:"claims"`
	// Spares that the running HAProxy has, and what they have become.
	Spares []plan.Spare `json:"spares,omitempty"`
	// Blocked are ports of the range that are not bound.
	Blocked []int `json:"blocked,omitempty"`
}

// wanted is what the files say.
func (s saved) wanted() Wanted { return Wanted{Table: s.Table, blocked: s.Blocked} }

func loadState(path string) (saved, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return saved{}, nil
	}
	if err != nil {
		return saved{}, fmt.Errorf("load state: %w", err)
	}
	return decodeState(path, data)
}

func decodeState(path string, data []byte) (saved, error) {
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return saved{}, fmt.Errorf("load state %s: %w", path, err)
	}
	if s.Table == nil {
		return saved{}, fmt.Errorf("load state %s: it has no table", path)
	}
	for _, b := range s.Table.Backends {
		if b == nil {
			return saved{}, fmt.Errorf("load state %s: it has an empty backend", path)
		}
	}
	for _, service := range s.Table.Services {
		if service == nil {
			return saved{}, fmt.Errorf("load state %s: it has an empty service", path)
		}
	}
	return s, nil
}

func (s saved) save(path string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}
