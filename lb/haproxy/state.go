package haproxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

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
// is not encoded again, but copied from that file. It is for one goroutine at a time.
type states struct {
	path string
	// last is the file that was saved last, and backends where it has each.
	last     fs.FileInfo
	backends map[*routing.Backend]section
}

// section of a file.
type section struct{ from, size int64 }

func (s *states) save(state saved) error {
	if err := s.write(state); err != nil {
		s.last, s.backends = nil, nil
		return fmt.Errorf("save state: %w", err)
	}
	return nil
}

// write writes the state as JSON, in which the backends of the table come last.
func (s *states) write(state saved) error {
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
	file, err := renameio.NewPendingFile(s.path, renameio.WithPermissions(0o600))
	if err != nil {
		return err
	}
	defer func() { _ = file.Cleanup() }()
	before := s.before()
	if before != nil {
		defer before.Close()
	}
	to := bufio.NewWriterSize(file, 1<<16)
	offset, _ := to.Write(head[:at])
	next := make(map[*routing.Backend]section, len(all))
	for n, b := range all {
		text, err := s.encode(b, before)
		if err != nil {
			return fmt.Errorf("backend %q: %w", b.ID, err)
		}
		if n > 0 {
			_ = to.WriteByte(',')
			offset++
		}
		_, _ = to.Write(text)
		next[b] = section{int64(offset), int64(len(text))}
		offset += len(text)
	}
	_, _ = to.Write(head[at:])
	if err := to.Flush(); err != nil {
		return err
	}
	last, err := file.Stat()
	if err != nil {
		return err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return err
	}
	s.last, s.backends = last, next
	return nil
}

// before is the file that was saved last; nil if it is not there as it was left.
func (s *states) before() *earlier {
	if s.last == nil {
		return nil
	}
	file, err := os.Open(s.path)
	if err != nil {
		return nil
	}
	now, err := file.Stat()
	if err != nil || !os.SameFile(now, s.last) || now.Size() != s.last.Size() || !now.ModTime().Equal(s.last.ModTime()) {
		_ = file.Close()
		return nil
	}
	return &earlier{File: file, window: make([]byte, 0, 1<<16)}
}

// encode is the backend as JSON, as the file before has it if it has. It is valid until
// the next call.
func (s *states) encode(b *routing.Backend, before *earlier) ([]byte, error) {
	if at, known := s.backends[b]; known && before != nil {
		if text := before.read(at); text != nil {
			return text, nil
		}
	}
	return json.Marshal(b)
}

// earlier is a file whose sections are read one after the other, mostly.
type earlier struct {
	*os.File
	// window is what has been read of it, from at on.
	window []byte
	at     int64
}

// read is the section's text, until the next call; nil if it cannot be had.
func (e *earlier) read(s section) []byte {
	if s.from < e.at || s.from+s.size > e.at+int64(len(e.window)) {
		e.window = slices.Grow(e.window[:0], int(s.size))
		e.window = e.window[:cap(e.window)]
		n, _ := e.ReadAt(e.window, s.from)
		e.at, e.window = s.from, e.window[:n]
		if int64(n) < s.size {
			return nil
		}
	}
	from := s.from - e.at
	return e.window[from : from+s.size]
}
