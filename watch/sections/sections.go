// Package sections writes a file again and again of which most stays as it was: sections
// that have not changed are copied from the file before instead of being made again. For
// ten thousand services, of which one has changed, that is the difference between
// encoding all of them and copying a file.
package sections

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/google/renameio/v2"
)

// window is how much of the file before is read at once, in bytes.
const window = 1 << 16

// File is replaced as a whole each time it is written. It is for one goroutine at a time.
type File struct {
	path    string
	options []renameio.Option
	// last is the file that was written last, and places where it has each section.
	last   fs.FileInfo
	places map[any]place
}

// place of a section in a file.
type place struct{ from, size int64 }

// New is the file at the path. It is not touched before it is written.
func New(path string, options ...renameio.Option) *File {
	return &File{path: path, options: options}
}

// Write replaces the file by what a function writes; if that fails, or the disk does, the
// file stays as it is.
func (f *File) Write(do func(*Writer) error) error {
	last, places, err := f.write(do)
	f.last, f.places = last, places
	return err
}

func (f *File) write(do func(*Writer) error) (fs.FileInfo, map[any]place, error) {
	file, err := renameio.NewPendingFile(f.path, f.options...)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Cleanup() }()
	w := &Writer{to: bufio.NewWriterSize(file, window), places: make(map[any]place, len(f.places))}
	if before := f.before(); before != nil {
		defer before.Close()
		w.before, w.known = before, f.places
	}
	if err := do(w); err != nil {
		return nil, nil, err
	}
	if err := w.to.Flush(); err != nil {
		return nil, nil, err
	}
	last, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if err := file.CloseAtomicallyReplace(); err != nil {
		return nil, nil, err
	}
	return last, w.places, nil
}

// before is the file that was written last; nil if it is not there as it was left.
func (f *File) before() *earlier {
	if f.last == nil {
		return nil
	}
	file, err := os.Open(f.path)
	if err != nil {
		return nil
	}
	now, err := file.Stat()
	if err != nil || !os.SameFile(now, f.last) || now.Size() != f.last.Size() || !now.ModTime().Equal(f.last.ModTime()) {
		_ = file.Close()
		return nil
	}
	return &earlier{File: file, window: make([]byte, 0, window)}
}

// Writer is a file that is being written. What the disk says comes out at its end.
type Writer struct {
	to     *bufio.Writer
	offset int64
	places map[any]place

	before *earlier
	known  map[any]place
}

// Text writes what may be another each time.
func (w *Writer) Text(text []byte) {
	n, _ := w.to.Write(text)
	w.offset += int64(n)
}

// Section writes what a function makes for the key, or what it made when the key was
// written last. Keys must be comparable, and stand for something that does not change:
// pointers to immutable values do. Sections that come in the order of the last time are
// copied fastest.
func (w *Writer) Section(key any, encode func() ([]byte, error)) error {
	text := w.copied(key)
	if text == nil {
		var err error
		if text, err = encode(); err != nil {
			return fmt.Errorf("encode: %w", err)
		}
	}
	w.places[key] = place{w.offset, int64(len(text))}
	w.Text(text)
	return nil
}

// copied is the section as the file before has it, until the next call; nil if it is not
// there.
func (w *Writer) copied(key any) []byte {
	if w.before == nil {
		return nil
	}
	at, known := w.known[key]
	if !known {
		return nil
	}
	return w.before.read(at)
}

// earlier is a file whose sections are read one after the other, mostly.
type earlier struct {
	*os.File
	// window is what has been read of it, from at on.
	window []byte
	at     int64
}

// read is the section's text, until the next call; nil if it cannot be had.
func (e *earlier) read(p place) []byte {
	if p.from < e.at || p.from+p.size > e.at+int64(len(e.window)) {
		e.window = slices.Grow(e.window[:0], int(p.size))
		e.window = e.window[:cap(e.window)]
		n, _ := e.ReadAt(e.window, p.from)
		e.at, e.window = p.from, e.window[:n]
		if int64(n) < p.size {
			return nil
		}
	}
	from := p.from - e.at
	return e.window[from : from+p.size]
}
