package ssh

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// File says where an upload goes.
type File struct {
	// Path is absolute; its directory exists.
	Path string
	Mode fs.FileMode
	// Owner is "user" or "user:group"; empty is who writes it.
	Owner string
	// Root writes it as root.
	Root bool
}

// ErrCorrupt is an upload that did not arrive as it was sent.
var ErrCorrupt = errors.New("what arrived is not what was sent")

var ownerName = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?$`)

// corruptCode is how the upload's shell says that the checksum is wrong.
const corruptCode = 86

// Upload writes a file in one step: whoever reads the path meets the old file or
// the whole new one, with its mode and owner. The content is read twice, once for
// its checksum, which the host compares before the file takes its place. Nothing
// is left behind if it fails. It returns the checksum in hex.
func (h *Host) Upload(ctx context.Context, f File, content io.ReadSeeker) (sum string, err error) {
	if !path.IsAbs(f.Path) || strings.ContainsAny(f.Path, "\x00\n") {
		return "", fmt.Errorf("%s: upload %q: the path must be absolute", h.target.Name, f.Path)
	}
	if f.Owner != "" && !ownerName.MatchString(f.Owner) {
		return "", fmt.Errorf("%s: upload %s: %q is no owner", h.target.Name, f.Path, f.Owner)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, content); err != nil {
		return "", fmt.Errorf("%s: upload %s: read the content: %w", h.target.Name, f.Path, err)
	}
	if _, err := content.Seek(0, io.SeekStart); err != nil {
		return "", fmt.Errorf("%s: upload %s: read the content again: %w", h.target.Name, f.Path, err)
	}
	sum = hex.EncodeToString(hash.Sum(nil))
	owner := ""
	if f.Owner != "" {
		owner = "chown " + f.Owner + ` "$t" && `
	}
	directory, base := path.Split(path.Clean(f.Path))
	line := fmt.Sprintf(`umask 077; t=$(mktemp %s) || exit 1; trap 'rm -f "$t"' EXIT; trap 'exit 143' TERM HUP INT; cat >"$t" || exit 1; `+
		`[ "$(sha256sum <"$t" | cut -c1-64)" = %s ] || exit %d; %schmod %04o "$t" && { sync "$t" 2>/dev/null || sync; } && mv -fT "$t" %s`,
		Quote(directory+"."+base+".mi-lb-XXXXXX"), sum, corruptCode, owner, unixMode(f.Mode), Quote(path.Clean(f.Path)))
	_, err = h.Run(ctx, Command{Line: line, Stdin: content, Root: f.Root})
	var exit *ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == corruptCode:
		return "", fmt.Errorf("%s: upload %s: %w", h.target.Name, f.Path, ErrCorrupt)
	case errors.As(err, &exit):
		return "", fmt.Errorf("%s: upload %s: %s", h.target.Name, f.Path, exit.Stderr)
	case err != nil:
		return "", fmt.Errorf("upload %s: %w", f.Path, err)
	}
	return sum, nil
}

func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	if m&fs.ModeSetuid != 0 {
		mode |= 0o4000
	}
	if m&fs.ModeSetgid != 0 {
		mode |= 0o2000
	}
	if m&fs.ModeSticky != 0 {
		mode |= 0o1000
	}
	return mode
}

// missingCode is how the download's shell says that there is no such file.
const missingCode = 87

// Download copies a file of the host. A file that does not exist is fs.ErrNotExist.
func (h *Host) Download(ctx context.Context, file string, root bool, to io.Writer) error {
	line := fmt.Sprintf(`[ -e %[1]s ] || exit %[2]d; exec cat -- %[1]s`, Quote(file), missingCode)
	_, err := h.Run(ctx, Command{Line: line, Stdout: to, Root: root})
	var exit *ExitError
	switch {
	case errors.As(err, &exit) && exit.Code == missingCode:
		return fmt.Errorf("%s: download %s: %w", h.target.Name, file, fs.ErrNotExist)
	case errors.As(err, &exit):
		return fmt.Errorf("%s: download %s: %s", h.target.Name, file, exit.Stderr)
	case err != nil:
		return fmt.Errorf("download %s: %w", file, err)
	}
	return nil
}
