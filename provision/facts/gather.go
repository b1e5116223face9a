package facts

import (
	"bytes"
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/provision/ssh"
)

//go:embed gather.sh
var gatherScript string

// Runner is a machine that runs commands; [*ssh.Host] is one.
type Runner interface {
	Name() string
	Run(ctx context.Context, c ssh.Command) (ssh.Result, error)
}

// Gather finds out what a machine is. Where root's rights are not to be had it
// looks without them, and the facts say so: files that only root can read are
// missing from them then.
func Gather(ctx context.Context, host Runner, ask Ask) (*Facts, error) {
	f, err := gather(ctx, host, ask, true)
	for _, noRoot := range []error{ssh.ErrNoSudo, ssh.ErrNotRoot, ssh.ErrSudoPasswordNeeded, ssh.ErrWrongSudoPassword} {
		if errors.Is(err, noRoot) {
			if f, err = gather(ctx, host, ask, false); err == nil {
				f.Root, f.RootError = false, noRoot.Error()
			}
			break
		}
	}
	return f, err
}

// gather asks again if somebody wrote files while they were read.
func gather(ctx context.Context, host Runner, ask Ask, root bool) (*Facts, error) {
	f, err := gatherOnce(ctx, host, ask, root)
	if errors.Is(err, ErrChanging) {
		return gatherOnce(ctx, host, ask, root)
	}
	return f, err
}

func gatherOnce(ctx context.Context, host Runner, ask Ask, root bool) (*Facts, error) {
	random := make([]byte, 16)
	if _, err := rand.Read(random); err != nil {
		return nil, fmt.Errorf("%s: %w", host.Name(), err)
	}
	mark := hex.EncodeToString(random)
	script, err := ask.script(mark)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", host.Name(), err)
	}
	out := &stopwatch{}
	begun := time.Now()
	// The script comes as standard input: it is longer than a command line may be
	// where it asks for many files.
	_, err = host.Run(ctx, ssh.Command{Line: `script=$(cat) && eval "$script"`, Stdin: strings.NewReader(script), Stdout: out, Root: root})
	if err != nil {
		return nil, fmt.Errorf("find out what %s is: %w", host.Name(), err)
	}
	f, err := parse(out.data.Bytes(), ask, mark, begun.Add(out.first().Sub(begun)/2))
	if err != nil {
		return nil, fmt.Errorf("find out what %s is: %w", host.Name(), err)
	}
	f.Node, f.At = host.Name(), begun
	return f, nil
}

// stopwatch collects output and knows when it began.
type stopwatch struct {
	mu   sync.Mutex
	data bytes.Buffer
	when time.Time
}

// mostAnswer is more than any machine says.
const mostAnswer = 64 << 20

// Write implements io.Writer.
func (s *stopwatch) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.when.IsZero() {
		s.when = time.Now()
	}
	if s.data.Len()+len(p) > mostAnswer {
		return 0, ssh.ErrTooMuchOutput
	}
	return s.data.Write(p)
}

func (s *stopwatch) first() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.when
}
