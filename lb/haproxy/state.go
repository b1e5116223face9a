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
type states struct {
	path string
	// backends are what the last file has of each, which they share their memory with.
	backends map[*routing.Backend][]byte
}

func (s *states) save(state saved) error {
	data, err := s.encode(state)
	if err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	if err := renameio.WriteFile(s.path, data, 0o600); err != nil {
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// encode is the state as JSON, in which the backends of the table come last.
func (s *states) encode(state saved) ([]byte, error) {
	if state.Table == nil {
		return json.Marshal(state)
	}
	all := state.Table.Backends
	rest := *state.Table
	rest.Backends = []*routing.Backend{}
	state.Table = &rest
	head, err := json.Marshal(state)
	if err != nil {
		return nil, err
	}
	const empty = `"backends":[]`
	i := bytes.LastIndex(head, []byte(empty))
	if i < 0 {
		return nil, errors.New("encoded without a place for backends")
	}
	i += len(empty) - 1
	fresh := map[*routing.Backend][]byte{}
	size := len(head)
	for _, b := range all {
		text, known := s.backends[b]
		if !known {
			if text, err = json.Marshal(b); err != nil {
				return nil, fmt.Errorf("backend %q: %w", b.ID, err)
			}
			fresh[b] = text
		}
		size += len(text) + 1
	}
	data := make([]byte, 0, size)
	data = append(data, head[:i]...)
	next := make(map[*routing.Backend][]byte, len(all))
	for n, b := range all {
		if n > 0 {
			data = append(data, ',')
		}
		text, known := fresh[b]
		if !known {
			text = s.backends[b]
		}
		from := len(data)
		data = append(data, text...)
		next[b] = data[from:len(data):len(data)]
	}
	s.backends = next
	return append(data, head[i:]...), nil
}
