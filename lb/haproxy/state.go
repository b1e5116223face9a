package haproxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch/sections"
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
	// Spares that the running HAProxy has, and what they have become.
	Spares []plan.Spare `json:"spares,omitempty"`
	// Blocked are ports of the range that are not bound.
	Blocked []int `json:"blocked,omitempty"`
	// Table that the files say.
	Table *routing.Table `json:"table"`
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
	return s, nil
}

// states saves what is to be remembered. What a table shares with the one saved before
// is not encoded again. It is for one goroutine at a time.
type states struct{ file *sections.File }

func newStates(path string) *states {
	return &states{sections.New(path, renameio.WithPermissions(0o600))}
}

// save writes the state as JSON, in which the backends of the table come last.
func (s *states) save(state saved) error {
	if err := s.file.Write(func(w *sections.Writer) error { return writeState(w, state) }); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

func writeState(w *sections.Writer, state saved) error {
	var all []*routing.Backend
	if state.Table != nil {
		rest := *state.Table
		all, rest.Backends = rest.Backends, []*routing.Backend{}
		state.Table = &rest
	}
	head, err := json.Marshal(state)
	if err != nil {
		return err
	}
	const empty = `"backends":[]`
	at := bytes.LastIndex(head, []byte(empty))
	if at < 0 {
		if state.Table != nil {
			return errors.New("encoded without a place for backends")
		}
		at = len(head)
	} else {
		at += len(empty) - 1
	}
	w.Text(head[:at])
	for n, b := range all {
		if n > 0 {
			w.Text([]byte(","))
		}
		if err := w.Section(b, func() ([]byte, error) { return json.Marshal(b) }); err != nil {
			return fmt.Errorf("backend %q: %w", b.ID, err)
		}
	}
	w.Text(head[at:])
	return nil
}
