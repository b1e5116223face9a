package apply

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// LockFile is where a machine has the lock while somebody changes it.
const LockFile = "/run/mi-lb-bootstrap.lock"

// Owner is who holds the lock.
type Owner struct {
	ID      string    `json:"id"`
	Who     string    `json:"who"` // login and machine
	PID     int       `json:"pid"`
	Since   time.Time `json:"since"`
	Command string    `json:"command"`
}

// String says who it is.
func (o Owner) String() string {
	return fmt.Sprintf("%s (process %d, %q, since %s)", o.Who, o.PID, o.Command, o.Since.Local().Format("2006-01-02 15:04:05"))
}

// NewOwner is this process.
func NewOwner(command string) (Owner, error) {
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return Owner{}, fmt.Errorf("name the lock's owner: %w", err)
	}
	who := "somebody"
	if u, err := user.Current(); err == nil {
		who = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		who += "@" + host
	}
	return Owner{ID: hex.EncodeToString(random), Who: who, PID: os.Getpid(), Since: time.Now().UTC().Truncate(time.Second), Command: command}, nil
}

// ErrLocked is a lock that somebody else holds.
var ErrLocked = errors.New("somebody else is changing the platform")

// ErrLockLost is a lock that somebody else has taken over, because this process
// gave no sign of life.
var ErrLockLost = errors.New("the lock was taken over by somebody else")

const (
	heartbeat = 10 * time.Second
	// lockExpiry is when a lock whose owner gives no sign of life is nobody's.
	lockExpiry = 60 * time.Second
)

// What the lock's shell says.
const (
	saysLocked = "locked"
	saysHeld   = "held"
)

// lockScript takes the lock and keeps it while its input goes on: each line is a
// sign of life. When the input ends, as it does when whoever writes it is killed,
// the lock is given back.
const lockScript = `lock=%[1]s; owner=%[2]s; umask 077
mine() { [ "$(head -n 1 "$lock" 2>/dev/null)" = "$owner" ]; }
back() { exec 9>"$lock.guard"; flock -w 10 9; ! mine || rm -f "$lock"; }
exec 9>"$lock.guard" && flock -w 20 9 || { echo 'its guard cannot be locked' >&2; exit 1; }
if [ -e "$lock" ] && ! mine; then
	if [ -n "$(find "$lock" -newermt '-%[3]d seconds' ! -newermt '%[3]d seconds')" ]; then echo %[4]s; cat "$lock"; exit 0; fi
fi
printf '%%s\n' "$owner" >"$lock" || exit 1
trap back EXIT; trap 'exit 143' TERM INT HUP
flock -u 9; exec 9>&-
echo %[5]s
while read -r beat; do
	mine || { echo %[4]s; cat "$lock"; trap - EXIT; exit 0; }
	touch "$lock"
done`

// Lock is held on machines.
type Lock struct {
	file   string
	owner  Owner
	cancel context.CancelFunc
	lost   context.CancelCauseFunc
	wait   sync.WaitGroup
}

// Acquire takes the lock on all machines, or on none. The context that it returns
// ends when the lock is lost. file is for tests; empty is [LockFile].
func Acquire(ctx context.Context, machines []fleet.Machine, owner Owner, file string) (*Lock, context.Context, error) {
	if file == "" {
		file = LockFile
	}
	held, cancel := context.WithCancel(context.WithoutCancel(ctx))
	working, lost := context.WithCancelCause(ctx)
	l := &Lock{file: file, owner: owner, cancel: cancel, lost: lost}
	// The first machine decides between two who begin at the same time; the others
	// are asked at once.
	var failed []error
	for i, part := range [][]fleet.Machine{machines[:min(1, len(machines))], machines[min(1, len(machines)):]} {
		errs := make([]error, len(part))
		var all sync.WaitGroup
		for j, m := range part {
			all.Go(func() { errs[j] = l.take(ctx, held, m) })
		}
		all.Wait()
		for _, err := range errs {
			if err != nil {
				failed = append(failed, err)
			}
		}
		if i == 0 && len(failed) > 0 {
			break
		}
	}
	if len(failed) > 0 {
		l.Release()
		return nil, nil, failed[0]
	}
	return l, working, nil
}

// Release gives the lock back, and returns when all machines have it.
func (l *Lock) Release() {
	l.cancel()
	l.wait.Wait()
	l.lost(nil)
}

// take takes the lock on one machine, and keeps it in the background.
func (l *Lock) take(ctx, held context.Context, m fleet.Machine) error {
	ended, err := l.hold(ctx, held, m)
	if err != nil {
		return err
	}
	l.wait.Go(func() {
		for {
			err := <-ended
			if held.Err() != nil {
				return
			}
			if errors.Is(err, ErrLockLost) {
				l.lost(err)
				return
			}
			// The connection has ended, and the lock with it: take it again.
			for {
				select {
				case <-held.Done():
					return
				case <-time.After(2 * time.Second):
				}
				if ended, err = l.hold(held, held, m); err == nil {
					break
				}
				if errors.Is(err, ErrLocked) {
					l.lost(fmt.Errorf("%w: %w", ErrLockLost, err))
					return
				}
			}
		}
	})
	return nil
}

// lockPatienceOnce is how long a machine may take to give the lock.
const lockPatienceOnce = 40 * time.Second

// hold starts the shell that holds the lock on a machine; ended gets why it ended.
func (l *Lock) hold(ctx, held context.Context, m fleet.Machine) (ended <-chan error, err error) {
	data, err := json.Marshal(l.owner)
	if err != nil {
		return nil, err
	}
	line := fmt.Sprintf(lockScript, ssh.Quote(l.file), ssh.Quote(string(data)), int(lockExpiry.Seconds()), saysHeld, saysLocked)
	in, feed := io.Pipe()
	said := &firstWords{ready: make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		_, err := m.Run(context.WithoutCancel(held), ssh.Command{Line: line, Stdin: in, Stdout: said, Root: true})
		_ = in.CloseWithError(io.ErrClosedPipe)
		if err == nil && said.word() == saysHeld {
			err = fmt.Errorf("%w: %s", ErrLockLost, holder(said.rest()))
		}
		done <- err
	}()
	timer := time.NewTimer(lockPatienceOnce)
	defer timer.Stop()
	select {
	case <-said.ready:
	case err := <-done:
		if err == nil {
			err = errors.New("the machine does not say why")
		}
		if said.word() == saysHeld {
			return nil, fmt.Errorf("%w: the lock on %s is held by %s; wait until that run is done. If it is gone, its lock is nobody's after a minute", ErrLocked, m.Name(), holder(said.rest()))
		}
		return nil, fmt.Errorf("take the lock on %s: %w", m.Name(), err)
	case <-timer.C:
		_ = feed.Close()
		return nil, fmt.Errorf("take the lock on %s: it takes longer than %s", m.Name(), lockPatienceOnce)
	case <-ctx.Done():
		_ = feed.Close()
		return nil, context.Cause(ctx)
	}
	if said.word() != saysLocked {
		err := <-done
		if errors.Is(err, ErrLockLost) {
			err = nil
		}
		return nil, errors.Join(fmt.Errorf("%w: the lock on %s is held by %s; wait until that run is done. If it is gone, its lock is nobody's after a minute", ErrLocked, m.Name(), holder(said.rest())), err)
	}
	l.wait.Go(func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		defer feed.Close()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
				if _, err := io.WriteString(feed, ".\n"); err != nil {
					return // the shell has ended, which says why
				}
			}
		}
	})
	out := make(chan error, 1)
	l.wait.Go(func() { out <- <-done })
	return out, nil
}

// holder is who a lock file names.
func holder(text string) string {
	var o Owner
	if err := json.Unmarshal([]byte(strings.TrimSpace(text)), &o); err != nil || o.Who == "" {
		return "somebody unknown"
	}
	return o.String()
}

// firstWords collects what a shell says, and knows when its first line is there.
type firstWords struct {
	mu    sync.Mutex
	data  bytes.Buffer
	said  bool
	ready chan struct{}
}

// Write implements io.Writer.
func (w *firstWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.data.Len() < 64<<10 {
		w.data.Write(p)
	}
	if !w.said && bytes.ContainsRune(w.data.Bytes(), '\n') {
		w.said = true
		close(w.ready)
	}
	return len(p), nil
}

func (w *firstWords) word() string {
	lines := w.lines()
	// What comes last counts: "locked" first, and "held" when it is lost.
	if len(lines) >= 3 && lines[0] == saysLocked && lines[1] == saysHeld {
		return saysHeld
	}
	return lines[0]
}

func (w *firstWords) rest() string {
	lines := w.lines()
	for i, line := range lines {
		if line == saysHeld {
			return strings.Join(lines[i+1:], "\n")
		}
	}
	return ""
}

func (w *firstWords) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Split(w.data.String(), "\n")
}
