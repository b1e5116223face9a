package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Command is something to run on a host.
type Command struct {
	// Line is a line of POSIX shell. It appears in the host's list of processes: no
	// secret belongs there.
	Line string
	// Stdin is what the command reads; nil is nothing.
	Stdin io.Reader
	// Stdout and Stderr get what it writes; nil collects it in the result.
	Stdout, Stderr io.Writer
	// Root runs it as root, by sudo where the login is not root's.
	Root bool
}

// Result is what a command left.
type Result struct {
	Code           int
	Stdout, Stderr []byte // where the command named no writer
	Duration       time.Duration
}

// ExitError is a command that ran and failed.
type ExitError struct {
	Host, Line string
	Code       int
	Stderr     string // its end
}

// Error has the end of what the command said.
func (e *ExitError) Error() string {
	said := ""
	if e.Stderr != "" {
		said = ": " + e.Stderr
	}
	return fmt.Sprintf("%s: %q ended with %d%s", e.Host, e.Line, e.Code, said)
}

var (
	// ErrWrongSudoPassword is a password that sudo does not accept.
	ErrWrongSudoPassword = errors.New("sudo does not accept the password (ansible_become_password)")
	// ErrSudoPasswordNeeded is sudo asking for a password, and none was given.
	ErrSudoPasswordNeeded = errors.New("sudo asks for a password; set ansible_become_password")
	// ErrNoSudo is a login that may not become root, or a host without sudo.
	ErrNoSudo = errors.New("the login cannot become root by sudo")
	// ErrNotRoot is a login that is not root's where sudo is not to be used.
	ErrNotRoot = errors.New("the login is not root, and ansible_become is no")
	// ErrTooMuchOutput is a command whose output does not fit in memory.
	ErrTooMuchOutput = errors.New("the command writes too much")
)

const (
	mostOutput = 32 << 20
	// What a command gets to end by itself when it is cancelled.
	termGrace = 3 * time.Second
	killGrace = 2 * time.Second
)

// Run runs a command. The error is an [*ExitError] if the command ran and did not
// end with 0. When ctx ends, the command is told to (SIGTERM, then SIGKILL to it
// and its children).
func (h *Host) Run(ctx context.Context, c Command) (Result, error) {
	begun := time.Now()
	stdout, stderr := &bounded{}, &bounded{}
	out, errs := c.Stdout, c.Stderr
	if out == nil {
		out = stdout
	}
	tail := &tailBuffer{}
	if errs == nil {
		errs = stderr
	}
	code, err := h.execute(ctx, c.Line, h.rights(c.Root), c.Stdin, out, io.MultiWriter(errs, tail))
	result := Result{Code: code, Stdout: stdout.data, Stderr: stderr.data, Duration: time.Since(begun)}
	line := shorten(h.mask.Mask(c.Line))
	h.log.DebugContext(ctx, "command", "line", line, "root", c.Root, "code", code, "duration", result.Duration, "error", errorText(h.mask, err))
	switch {
	case err != nil:
		return result, fmt.Errorf("%s: run %q: %w", h.target.Name, line, err)
	case stdout.over || stderr.over:
		return result, fmt.Errorf("%s: run %q: %w", h.target.Name, line, ErrTooMuchOutput)
	case code != 0:
		return result, &ExitError{Host: h.target.Name, Line: line, Code: code, Stderr: h.mask.Mask(tail.String())}
	}
	return result, nil
}

func errorText(mask *redact.Mask, err error) string {
	if err == nil {
		return ""
	}
	return mask.Mask(err.Error())
}

func shorten(line string) string {
	line = strings.Join(strings.Fields(line), " ")
	if len(line) > 200 {
		line = strings.ToValidUTF8(line[:200], "") + "…"
	}
	return line
}

// rights are how a command gets the rights that it needs.
type rights int

const (
	asLogin  rights = iota // it needs none but the login's
	bySudo                 // sudo gives it root's
	ifRoot                 // it runs if the login is root's, and not otherwise
	asNeeded               // sudo gives it root's, unless the login is root's
)

// rights says how a command gets its rights. Who the login is comes out with the
// first command that needs root's: asking for that alone would be another round trip.
func (h *Host) rights(root bool) rights {
	if !root {
		return asLogin
	}
	if h.target.Become == cluster.BecomeAlways {
		return bySudo
	}
	h.rootMu.Lock()
	defer h.rootMu.Unlock()
	switch {
	case h.root != nil && *h.root:
		return asLogin
	case h.target.Become == cluster.BecomeNever:
		return ifRoot
	case h.root == nil:
		return asNeeded
	}
	return bySudo
}

// learn notes who the login is.
func (h *Host) learn(isRoot bool) {
	h.rootMu.Lock()
	defer h.rootMu.Unlock()
	h.root = &isRoot
}

// shellLine is a line within a small wrapper that says when the line starts, and as
// which process: what sudo says before is sudo's, and what is typed before is the
// password.
func shellLine(line string, r rights, gate *startGate) string {
	start := func(by string) string {
		return "exec sh -c " + Quote("printf '"+string(gate.start)+"%s "+by+"\\n' \"$$\" >&2; exec sh -c "+Quote(line))
	}
	// -k: always ask, if at all, so that the password never ends up on the command's
	// standard input.
	sudo := "exec env LC_ALL=C sudo -S -H -k -p " + Quote(string(gate.prompt)) + " -- sh -c " + Quote(start("sudo"))
	switch r {
	case bySudo:
		return sudo
	case ifRoot:
		return "exec sh -c " + Quote(`if [ "$(id -u)" != 0 ]; then echo `+string(gate.refuse)+` >&2; exit 1; fi; `+start("root"))
	case asNeeded:
		return "exec sh -c " + Quote(`if [ "$(id -u)" = 0 ]; then `+start("root")+`; fi; `+sudo)
	}
	return start("login")
}

// execute runs a line with rights.
func (h *Host) execute(ctx context.Context, line string, r rights, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return 0, err
	}
	nonce := hex.EncodeToString(random)
	gate := &startGate{
		start: []byte("mi-lb-start-" + nonce + " "), prompt: []byte("mi-lb-prompt-" + nonce), refuse: []byte("mi-lb-refuse-" + nonce), forward: stderr,
		started: make(chan struct{}), prompted: make(chan struct{}, 8),
	}
	shell := shellLine(line, r, gate)
	quitOut, quitErr := &detachable{to: stdout}, &detachable{to: gate}
	in, feed := io.Pipe()
	over := make(chan struct{})
	var password passwordState
	go h.feed(feed, gate, &password, stdin, over)
	running, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	type ending struct {
		code int
		err  error
	}
	ended := make(chan ending, 1)
	go func() {
		code, err := h.transport.run(running, shell, false, in, quitOut, quitErr)
		ended <- ending{code, err}
	}()
	var end ending
	select {
	case end = <-ended:
	case <-ctx.Done():
		h.kill(gate, drained(ended), abandon)
		// Should the other end not have noticed: nobody writes into the caller's
		// buffers after this.
		quitOut.detach()
		quitErr.detach()
		end = ending{err: context.Cause(ctx)}
	}
	close(over)
	_ = in.CloseWithError(io.ErrClosedPipe)
	if end.err != nil {
		return 0, end.err
	}
	switch pid, by := gate.process(); {
	case pid == 0 && bytes.Contains([]byte(gate.before()), gate.refuse):
		return end.code, ErrNotRoot
	case pid == 0:
		return end.code, password.explain(r != asLogin && r != ifRoot, gate.before())
	case r == asNeeded || r == ifRoot:
		h.learn(by == "root")
	}
	return end.code, nil
}

// drained is a channel that is closed when the command has ended.
func drained[T any](ended <-chan T) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		<-ended
		close(done)
	}()
	return done
}

// detachable is a writer that can be taken away from who writes.
type detachable struct {
	mu sync.Mutex
	to io.Writer
}

// Write implements io.Writer.
func (d *detachable) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.to == nil {
		return 0, io.ErrClosedPipe
	}
	return d.to.Write(p)
}

func (d *detachable) detach() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.to = nil
}

// kill ends a command that was cancelled, with its children, and waits for it as
// long as is decent.
func (h *Host) kill(gate *startGate, done <-chan struct{}, abandon func()) {
	if pid, by := gate.process(); pid != 0 {
		for _, step := range []struct {
			signal string
			grace  time.Duration
		}{{"TERM", termGrace}, {"KILL", killGrace}} {
			line := fmt.Sprintf(`group=$(sed 's/.*) //' /proc/%d/stat | cut -d' ' -f3) && kill -s %s -- "-$group"`, pid, step.signal)
			ctx, cancel := context.WithTimeout(context.Background(), step.grace)
			h.killLine(ctx, line, by == "sudo")
			select {
			case <-done:
				cancel()
				return
			case <-ctx.Done():
			}
			cancel()
		}
	}
	abandon()
	select {
	case <-done:
	case <-time.After(killGrace):
	}
}

// killLine runs a line beside the one that is to be killed.
func (h *Host) killLine(ctx context.Context, line string, sudo bool) {
	shell := "sh -c " + Quote(line)
	var stdin io.Reader = strings.NewReader("")
	if sudo {
		shell = "sudo -S -k -p '' -- sh -c " + Quote(line)
		stdin = strings.NewReader(h.target.BecomePassword.Reveal() + "\n")
	}
	if _, err := h.transport.run(ctx, shell, true, stdin, io.Discard, io.Discard); err != nil {
		h.log.Debug("the command could not be killed", "error", errorText(h.mask, err))
	}
}

// passwordState is how far sudo and the password have come.
type passwordState struct {
	mu      sync.Mutex
	prompts int
	missing bool
}

func (p *passwordState) prompted(missing bool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prompts++
	p.missing = missing
	return p.prompts
}

// explain says why the line never started.
func (p *passwordState) explain(sudo bool, said string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	said = strings.TrimSpace(said)
	switch {
	case !sudo:
		return fmt.Errorf("the host's shell did not start the command: %s", lastLine(said))
	case p.missing:
		return ErrSudoPasswordNeeded
	case p.prompts > 1:
		return ErrWrongSudoPassword
	}
	return fmt.Errorf("%w: %s", ErrNoSudo, lastLine(said))
}

func lastLine(s string) string {
	lines := strings.Split(s, "\n")
	return strings.TrimSpace(lines[len(lines)-1])
}

// feed types the password when sudo asks, and then what the command reads.
func (h *Host) feed(in *io.PipeWriter, gate *startGate, state *passwordState, stdin io.Reader, over <-chan struct{}) {
	defer in.Close()
	for {
		select {
		case <-gate.prompted:
			secret := h.target.BecomePassword
			if state.prompted(secret.IsEmpty()) > 1 || secret.IsEmpty() {
				return // the end of input ends sudo's asking
			}
			if _, err := io.WriteString(in, secret.Reveal()+"\n"); err != nil {
				return
			}
		case <-gate.started:
			if stdin != nil {
				_, _ = io.Copy(in, stdin) // a command need not read all of it
			}
			return
		case <-over:
			return
		}
	}
}

// startGate takes what comes on standard error: until the wrapper's mark it is
// sudo's, after it the command's.
type startGate struct {
	start, prompt, refuse []byte
	forward               io.Writer
	started, prompted     chan struct{}

	mu     sync.Mutex
	buffer []byte
	seen   int // prompts
	pid    int
	by     string // "login", "root" (a login that is) or "sudo"
}

// most that a host may say before a command starts.
const mostPreamble = 64 << 10

// Write implements io.Writer.
func (g *startGate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pid != 0 {
		return g.forward.Write(p)
	}
	g.buffer = append(g.buffer, p...)
	if n := bytes.Count(g.buffer, g.prompt); n > g.seen {
		for ; g.seen < n; g.seen++ {
			select {
			case g.prompted <- struct{}{}:
			default:
			}
		}
	}
	if at := bytes.Index(g.buffer, g.start); at >= 0 {
		rest := g.buffer[at+len(g.start):]
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			number, by, _ := strings.Cut(string(rest[:end]), " ")
			pid, err := strconv.Atoi(number)
			if err != nil || pid < 1 {
				return 0, fmt.Errorf("the host's shell answers %q", rest[:end])
			}
			g.pid, g.by = pid, by
			close(g.started)
			after := rest[end+1:]
			g.buffer = g.buffer[:at]
			if len(after) > 0 {
				if _, err := g.forward.Write(after); err != nil {
					return 0, err
				}
			}
		}
		return len(p), nil
	}
	if len(g.buffer) > mostPreamble {
		return 0, ErrTooMuchOutput
	}
	return len(p), nil
}

// process is the command's, and who gave it its rights; 0 before it starts.
func (g *startGate) process() (pid int, by string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.pid, g.by
}

func (g *startGate) before() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return strings.ReplaceAll(string(g.buffer), string(g.prompt), "")
}

// bounded collects output up to a limit.
type bounded struct {
	data []byte
	over bool
}

// Write implements io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if room := mostOutput - len(b.data); len(p) > room {
		b.over = true
		b.data = append(b.data, p[:room]...)
		return len(p), nil
	}
	b.data = append(b.data, p...)
	return len(p), nil
}

// tailBuffer keeps the end of what was written.
type tailBuffer struct{ data []byte }

const tailLength = 2000

// Write implements io.Writer.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if len(t.data) > 2*tailLength {
		t.data = append(t.data[:0], t.data[len(t.data)-tailLength:]...)
	}
	return len(p), nil
}

// String is the end, on one line.
func (t *tailBuffer) String() string {
	s := strings.ToValidUTF8(string(t.data[max(0, len(t.data)-tailLength):]), "?")
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Quote makes one word of POSIX shell of s.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
