package apply

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/ulikunitz/xz"
)

// entry is a file, directory or link in an archive.
type entry struct {
	name string // cleaned, relative, without ".."
	mode fs.FileMode
	link string // of a symbolic link
	size int64
	open func() (io.Reader, error) // of a file; good until the next entry
}

// errUnsafe is an archive whose entries would end up elsewhere.
var errUnsafe = errors.New("the archive has entries that lead out of it")

// mostUnpacked is more than any program is, in bytes: an archive may say that it is
// small and be endless.
const mostUnpacked = 4 << 30

// walk goes through an archive (.zip, .tar, .tar.gz, .tgz, .tar.xz, .txz).
func walk(file string, visit func(entry) error) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	magic := make([]byte, 6)
	n, err := io.ReadFull(f, magic)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	switch magic = magic[:n]; {
	case bytes.HasPrefix(magic, []byte("PK\x03\x04")):
		err = walkZip(f, visit)
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		var r *gzip.Reader
		if r, err = gzip.NewReader(f); err == nil {
			err = walkTar(r, visit)
		}
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		var r *xz.Reader
		if r, err = xz.NewReader(f); err == nil {
			err = walkTar(r, visit)
		}
	default:
		err = walkTar(f, visit)
	}
	if err != nil {
		return fmt.Errorf("unpack %s: %w", file, err)
	}
	return nil
}

func walkZip(f *os.File, visit func(entry) error) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	r, err := zip.NewReader(f, info.Size())
	if err != nil {
		return err
	}
	for _, z := range r.File {
		name, err := safeName(z.Name)
		if err != nil {
			return err
		}
		e := entry{name: name, mode: z.Mode(), size: int64(z.UncompressedSize64), open: func() (io.Reader, error) { return z.Open() }}
		if e.mode&fs.ModeSymlink != 0 {
			target, err := z.Open()
			if err != nil {
				return err
			}
			text, err := io.ReadAll(io.LimitReader(target, 4096))
			if err != nil {
				return err
			}
			e.link = string(text)
		}
		if err := visit(e); err != nil {
			return err
		}
	}
	return nil
}

func walkTar(r io.Reader, visit func(entry) error) error {
	t := tar.NewReader(r)
	for {
		header, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, err := safeName(header.Name)
		if err != nil {
			return err
		}
		e := entry{name: name, mode: header.FileInfo().Mode(), size: header.Size, link: header.Linkname, open: func() (io.Reader, error) { return t, nil }}
		switch header.Typeflag {
		case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
		case tar.TypeXGlobalHeader:
			continue
		default:
			return fmt.Errorf("%s is neither a file, a directory nor a symbolic link", header.Name)
		}
		if err := visit(e); err != nil {
			return err
		}
	}
}

// safeName is the name of an entry below the place that it is unpacked to.
func safeName(name string) (string, error) {
	clean := path.Clean(strings.TrimPrefix(strings.ReplaceAll(name, `\`, "/"), "./"))
	if path.IsAbs(clean) || clean == ".." || strings.HasPrefix(clean, "../") || strings.ContainsRune(clean, 0) {
		return "", fmt.Errorf("%w: %q", errUnsafe, name)
	}
	return clean, nil
}

// member is the content of one file of an archive: that of this path, else the
// only one of this name.
func member(file, name string) ([]byte, error) {
	var found []byte
	best, same := "", 0
	err := walk(file, func(e entry) error {
		if !e.mode.IsRegular() || e.name != name && path.Base(e.name) != path.Base(name) {
			return nil
		}
		if e.name != name {
			if same++; best == name {
				return nil
			}
		}
		r, err := e.open()
		if err != nil {
			return err
		}
		content, err := io.ReadAll(io.LimitReader(r, mostUnpacked+1))
		if err != nil {
			return err
		}
		if len(content) > mostUnpacked {
			return fmt.Errorf("%s is too large", e.name)
		}
		found, best = content, e.name
		return nil
	})
	switch {
	case err != nil:
		return nil, err
	case best == "":
		return nil, fmt.Errorf("unpack %s: it has no %s", file, name)
	case best != name && same > 1:
		return nil, fmt.Errorf("unpack %s: it has %d files named %s; give the path of one", file, same, path.Base(name))
	}
	return found, nil
}

// repack writes an archive as a plain tar, owned by root, without the directory at
// its top if that is the only one there.
func repack(file string, to io.Writer) error {
	top, only := "", true
	if err := walk(file, func(e entry) error {
		first, _, deeper := strings.Cut(e.name, "/")
		if e.name == "." {
			return nil
		}
		if top == "" {
			top = first
		}
		only = only && first == top && (deeper || e.mode.IsDir())
		return nil
	}); err != nil {
		return err
	}
	t := tar.NewWriter(to)
	written := int64(0)
	err := walk(file, func(e entry) error {
		if only && top != "" {
			e.name = strings.TrimPrefix(strings.TrimPrefix(e.name, top), "/")
		}
		if e.name == "" || e.name == "." {
			return nil
		}
		header := &tar.Header{Name: e.name, Mode: int64(e.mode.Perm()), Format: tar.FormatPAX}
		switch {
		case e.mode.IsDir():
			header.Typeflag, header.Name = tar.TypeDir, e.name+"/"
		case e.mode&fs.ModeSymlink != 0:
			// Where it leads must be within the tree, as it is seen from where it is.
			if _, err := safeName(path.Join(path.Dir(e.name), e.link)); err != nil || path.IsAbs(e.link) {
				return fmt.Errorf("%w: %s is a link to %s", errUnsafe, e.name, e.link)
			}
			header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, e.link, 0o777
		default:
			header.Typeflag, header.Size = tar.TypeReg, e.size
		}
		if written += header.Size; written > mostUnpacked {
			return errors.New("it is too large")
		}
		if err := t.WriteHeader(header); err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			return nil
		}
		r, err := e.open()
		if err != nil {
			return err
		}
		_, err = io.CopyN(t, r, e.size)
		return err
	})
	if err != nil {
		return err
	}
	return t.Close()
}
