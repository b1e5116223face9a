package survey

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
)

// files are the checksums of files on this machine that are installed on others;
// each is read once.
type files struct {
	mu   sync.Mutex
	sums map[string]func() (string, error)
}

func (f *files) sum(path string) (string, error) {
	f.mu.Lock()
	if f.sums == nil {
		f.sums = map[string]func() (string, error){}
	}
	once, ok := f.sums[path]
	if !ok {
		once = sync.OnceValues(func() (string, error) { return checksum(path) })
		f.sums[path] = once
	}
	f.mu.Unlock()
	return once()
}

func checksum(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// resolve completes the artefacts of a part with the checksums of files, which are
// how a program that is installed already is known.
func (f *files) resolve(node string, part *desired.Part) []component.Problem {
	var problems []component.Problem
	var kept []desired.Program
	for _, p := range part.Programs {
		a := &p.Artefact
		switch {
		case a.Source == cluster.SourcePreinstalled:
			continue // somebody else installs it
		case a.File != "":
			sum, err := f.sum(a.File)
			switch {
			case err != nil:
				problems = append(problems, component.Problem{
					Fatal: true, Code: "artefact", Node: node, Component: part.Component,
					Message: fmt.Sprintf("%s is to be installed from a file that cannot be read: %v", p.Path, err), Advice: "correct the name of the file in the inventory, or put it there",
				})
			case a.SHA256 != "" && a.SHA256 != sum:
				problems = append(problems, component.Problem{
					Fatal: true, Code: "artefact", Node: node, Component: part.Component,
					Message: fmt.Sprintf("the file %s has the SHA-256 checksum %s, and the inventory says %s", a.File, sum, a.SHA256), Advice: "find out which of the two is right",
				})
			default:
				a.SHA256 = sum
			}
		case a.URL != "" && a.SHA256 == "":
			problems = append(problems, component.Problem{
				Fatal: true, Code: "artefact", Node: node, Component: part.Component,
				Message: fmt.Sprintf("%s is to be downloaded from %s, and no checksum says what it must be", p.Path, a.URL), Advice: "set its SHA-256 in the inventory",
			})
		}
		kept = append(kept, p)
	}
	part.Programs = kept
	return problems
}
