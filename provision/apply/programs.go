package apply

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// program installs a program from its artefact.
func (s *steps) program(ctx context.Context, p desired.Program) error {
	if err := s.run(ctx, "mkdir -p "+ssh.Quote(path.Dir(p.Path))); err != nil {
		return fmt.Errorf("install %s: %w", p.Path, err)
	}
	var err error
	switch a := p.Artefact; {
	case a.File == "" && a.URL == "":
		err = errors.New("it has neither a file nor a URL to come from")
	case a.File != "" && (p.Tree || p.Member != ""):
		err = s.unpack(ctx, p, a.File)
	case a.File != "":
		s.say("uploads %s", p.Path)
		err = s.upload(ctx, p, a.File)
	case p.Tree || p.Member != "":
		var archive string
		if archive, err = s.fetchHere(ctx, a); err == nil {
			err = s.unpack(ctx, p, archive)
		}
	default:
		err = s.fetchThere(ctx, p)
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", p.Path, err)
	}
	return s.noteProgram(ctx, p)
}

// noteProgram notes which program is installed, and how its file looks.
func (s *steps) noteProgram(ctx context.Context, p desired.Program) error {
	found, err := facts.Gather(ctx, s.machine, facts.Ask{Looks: []string{p.Path}, Stamps: s.wave.Stamps})
	if err != nil {
		return err
	}
	return s.stamp(ctx, map[string]string{plan.ProgramStampName(p): plan.ProgramStamp(p, found.Files[p.Path])})
}

// upload sends a program that is a file here.
func (s *steps) upload(ctx context.Context, p desired.Program, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	sum, err := s.machine.Upload(ctx, ssh.File{Path: p.Path, Mode: p.Mode, Owner: "root:root", Root: true}, f)
	if err == nil && p.Member == "" && sum != p.Artefact.SHA256 {
		err = fmt.Errorf("%s has changed while it was sent", file)
	}
	return err
}

// unpack takes out of an archive that is here what is wanted, and sends it.
func (s *steps) unpack(ctx context.Context, p desired.Program, archive string) error {
	s.say("unpacks %s", p.Path)
	if !p.Tree {
		content, err := member(archive, p.Member)
		if err != nil {
			return err
		}
		_, err = s.machine.Upload(ctx, ssh.File{Path: p.Path, Mode: p.Mode, Owner: "root:root", Root: true}, bytes.NewReader(content))
		return err
	}
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(repack(archive, writer)) }()
	defer reader.Close()
	// The tree is complete before it takes its place, as nearly in one step as
	// directories allow.
	target, next, old := ssh.Quote(p.Path), ssh.Quote(p.Path+".mi-lb-new"), ssh.Quote(p.Path+".mi-lb-old")
	line := fmt.Sprintf(`rm -rf %[2]s %[3]s && mkdir -p %[2]s && tar -x -p --no-same-owner -f - -C %[2]s && chmod 0755 %[2]s && { sync -f %[2]s 2>/dev/null || sync; } && `+
		`{ [ ! -e %[1]s ] || mv -T %[1]s %[3]s; } && mv -T %[2]s %[1]s && rm -rf %[3]s`, target, next, old)
	_, err := s.machine.Run(ctx, ssh.Command{Line: line, Stdin: reader, Root: true})
	return err
}

// fetchThere lets the machine download a program; where it has nothing to do so
// with, it is downloaded here and sent.
func (s *steps) fetchThere(ctx context.Context, p desired.Program) error {
	s.say("downloads %s", p.Artefact.URL)
	url, target := ssh.Quote(p.Artefact.URL), ssh.Quote(p.Path)
	line := fmt.Sprintf(`umask 077; t=$(mktemp %[1]s) || exit 1; trap 'rm -f "$t"' EXIT; trap 'exit 143' TERM HUP INT
if command -v curl >/dev/null; then curl -fsSL --retry 3 --connect-timeout 20 -o "$t" -- %[2]s || exit 1
elif command -v wget >/dev/null; then wget -q -O "$t" -- %[2]s || { echo "wget could not download it" >&2; exit 1; }
else exit %[3]d; fi
sum=$(sha256sum <"$t" | cut -c1-64); [ "$sum" = %[4]s ] || { echo "what was downloaded has the SHA-256 checksum $sum, and not %[4]s" >&2; exit 1; }
chown root:root "$t" && chmod %04[5]o "$t" && { sync "$t" 2>/dev/null || sync; } && mv -fT "$t" %[6]s`,
		ssh.Quote(path.Dir(p.Path)+"/.mi-lb-XXXXXX"), url, noDownloader, p.Artefact.SHA256, p.Mode.Perm(), target)
	_, err := s.machine.Run(ctx, ssh.Command{Line: line, Root: true})
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		if exit.Code != noDownloader {
			return fmt.Errorf("%s cannot download %s: %s", exit.Host, p.Artefact.URL, exit.Stderr)
		}
		file, err := s.fetchHere(ctx, p.Artefact)
		if err != nil {
			return err
		}
		return s.upload(ctx, p, file)
	}
	return err
}

// noDownloader is how the machine says that it has neither curl nor wget.
const noDownloader = 88

// downloadPatience is how long one download may take.
const downloadPatience = 20 * time.Minute

// fetchHere downloads an artefact to this machine, once for all that need it, and
// returns the file.
func (s *steps) fetchHere(ctx context.Context, a cluster.Artefact) (string, error) {
	w := s.wave
	if w.Cache == "" {
		return "", errors.New("there is no directory for downloads")
	}
	file := filepath.Join(w.Cache, a.SHA256+"-"+path.Base(strings.SplitN(a.URL, "?", 2)[0]))
	w.downloads.Lock()
	defer w.downloads.Unlock()
	if sum, err := sumOf(file); err == nil && sum == a.SHA256 {
		return file, nil
	}
	s.say("downloads %s to this machine", a.URL)
	ctx, cancel := context.WithTimeout(ctx, downloadPatience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", fmt.Errorf("download it to this machine: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return "", fmt.Errorf("download %s to this machine: the answer is %s", a.URL, answer.Status)
	}
	if err := os.MkdirAll(w.Cache, 0o700); err != nil {
		return "", err
	}
	part, err := os.CreateTemp(w.Cache, ".part-")
	if err != nil {
		return "", err
	}
	defer os.Remove(part.Name())
	defer part.Close()
	hash := sha256.New()
	if _, err := io.Copy(io.MultiWriter(part, hash), answer.Body); err != nil {
		return "", fmt.Errorf("download %s to this machine: %w", a.URL, err)
	}
	if sum := hex.EncodeToString(hash.Sum(nil)); sum != a.SHA256 {
		return "", fmt.Errorf("what was downloaded from %s has the SHA-256 checksum %s, and not %s", a.URL, sum, a.SHA256)
	}
	if err := part.Close(); err != nil {
		return "", err
	}
	return file, os.Rename(part.Name(), file)
}

func sumOf(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}
