package apply

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// Journal is a file on the operator's machine: what runs began and finished. A run
// does not need it to complete what another left, as machines say that themselves;
// it is for telling people.
type Journal struct {
	mu   sync.Mutex
	file *os.File
}

// entryKind is what a line of the journal says.
type entryKind string

const (
	runBegun entryKind = "run-begun"
	runEnded entryKind = "run-ended"
	happened entryKind = "event"
)

// journalEntry is a line of the journal.
type journalEntry struct {
	Kind  entryKind `json:"kind"`
	At    time.Time `json:"at"`
	Owner *Owner    `json:"owner,omitempty"`
	Event *Event    `json:"event,omitempty"`
	// OK says whether a run that ended has done everything.
	OK *bool `json:"ok,omitempty"`
}

// OpenJournal opens a journal for writing, and makes it if there is none.
func OpenJournal(path string) (*Journal, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the journal: %w", err)
	}
	return &Journal{file: file}, nil
}

func (j *Journal) write(e journalEntry) error {
	if e.At.IsZero() {
		e.At = time.Now()
	}
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	// One write, so that a kill leaves whole lines.
	if _, err := j.file.Write(append(data, '\n')); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// Begin notes that a run begins.
func (j *Journal) Begin(o Owner) error { return j.write(journalEntry{Kind: runBegun, Owner: &o}) }

// Event notes what happens, but for what is only waited for.
func (j *Journal) Event(e Event) error {
	if e.State == Waiting || e.State == Unchanged {
		return nil
	}
	return j.write(journalEntry{Kind: happened, At: e.At, Event: &e})
}

// End notes that a run has ended by itself, and closes the journal.
func (j *Journal) End(ok bool) error {
	err := j.write(journalEntry{Kind: runEnded, OK: &ok})
	return errors.Join(err, j.file.Close())
}

// CutOff is a run that did not end by itself.
type CutOff struct {
	Owner Owner
	At    time.Time
	// Doing is what was being done: "zookeeper on control-01: writes /etc/…".
	Doing []string
}

// LastCutOff is the last run, if it was cut off; nil if it ended by itself, or there
// was none.
func LastCutOff(path string) (*CutOff, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	defer file.Close()
	var last *CutOff
	doing := map[string]string{}
	scanner := bufio.NewScanner(file)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		var e journalEntry
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue // the line that a full disk cut short
		}
		switch {
		case e.Kind == runBegun && e.Owner != nil:
			last, doing = &CutOff{Owner: *e.Owner}, map[string]string{}
		case e.Kind == runEnded:
			last = nil
		case last != nil && e.Event != nil:
			where := e.Event.Node
			if where == "" {
				where = e.Event.Datacenter
			}
			key := e.Event.Component + " on " + where
			if e.Event.State == Working {
				doing[key] = key + ": " + e.Event.Step
			} else {
				delete(doing, key)
			}
		}
		if last != nil {
			last.At = e.At
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	if last != nil {
		for _, text := range doing {
			last.Doing = append(last.Doing, text)
		}
		slices.Sort(last.Doing)
	}
	return last, nil
}
