package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
)

var (
	// ErrNotRunning: no HAProxy listens on the master socket.
	ErrNotRunning = errors.New("no HAProxy is running")
	// ErrNotOurs: something does, but not the HAProxy that is meant.
	ErrNotOurs = errors.New("not our HAProxy")
	// ErrNotManaged: an attached HAProxy is somebody else's to start and stop.
	ErrNotManaged = errors.New("HAProxy is not managed here")
)

// Config says which HAProxy it is about.
type Config struct {
	// Path of the haproxy program, or its name on the PATH.
	Path string
	// Files HAProxy runs from, as absolute paths, in order. Attached without files,
	// whatever files it runs from are right, and failures of a reload are told
	// without HAProxy's reason where HAProxy is older than 2.7.
	Files []string
	// MasterSocket and RuntimeSocket are absolute paths. The configuration must have
	// the latter as a `stats socket … level admin expose-fd listeners`.
	MasterSocket  string
	RuntimeSocket string
	// Output is the path of the named pipe that carries HAProxy's messages. Only a
	// managed HAProxy has one.
	Output string
	// Managed: started and supervised here. Else attached.
	Managed bool
	Policy  Policy
	// Log gets HAProxy's own messages too; nil is [slog.Default].
	Log *slog.Logger
}

// Policy is how often HAProxy may be reloaded, and how long things may take. Zero
// values are the defaults named.
type Policy struct {
	// MinInterval between the beginnings of two reloads; none.
	MinInterval time.Duration
	// MaxOldWorkers is how many workers may still finish what they have when a reload
	// begins; no limit. Each is a full copy of HAProxy's memory.
	MaxOldWorkers int
	// OldWorkerWait is how long a reload waits for that limit before it is done all
	// the same; 30 s.
	OldWorkerWait time.Duration
	// ReloadTimeout bounds one reload from when it may begin, StartTimeout a start;
	// 60 s.
	ReloadTimeout time.Duration
	StartTimeout  time.Duration
	// RestartMax is the longest pause between attempts to start a HAProxy that does
	// not stay up; 10 s. The first is 50 ms.
	RestartMax time.Duration
}

// State is which processes HAProxy consists of.
type State struct {
	Master int
	// Worker accepts connections.
	Worker int
	// Old workers finish what they have.
	Old     []int
	Version string
	// Description is the configuration's `description`, which may hold a generation.
	Description string
	// MaxConn, Descriptors and MostSockets are the worker's; see [runtime.Info].
	MaxConn, Descriptors, MostSockets int
}

// Cause is why another worker serves, in words fit for a metric's label.
type Cause string

const (
	Started   Cause = "started"
	Adopted   Cause = "adopted"
	Restarted Cause = "restarted"
	Reloaded  Cause = "reloaded"
	// Foreign: somebody else reloaded or restarted it.
	Foreign Cause = "foreign"
	// Lost: it has ended. State is the last one known.
	Lost Cause = "lost"
)

// Event tells that another worker serves than before, or none.
type Event struct {
	Cause Cause
	State State
	// Err is with Lost: why it could not be started again, so far.
	Err error
}

// Process is one HAProxy: a master and its workers. Its methods may be called from
// any goroutine.
type Process struct {
	cfg     Config
	master  *runtime.Master
	runtime *runtime.Client
	log     *slog.Logger
	output  *output
	events  chan Event

	// turn is held by whoever starts, reloads or stops HAProxy.
	turn chan struct{}

	mu         sync.Mutex
	running    *master
	state      State
	stopped    bool
	reloadedAt time.Time
}

// New prepares a HAProxy. It neither starts nor looks for one.
func New(cfg Config) (*Process, error) {
	for name, path := range map[string]string{"master socket": cfg.MasterSocket, "runtime socket": cfg.RuntimeSocket} {
		if !filepath.IsAbs(path) || strings.ContainsAny(path, ", \t\n") || len(path) > 100 {
			return nil, fmt.Errorf("HAProxy's %s %q must be an absolute path of at most 100 bytes without blanks and commas", name, path)
		}
	}
	for _, f := range cfg.Files {
		if !filepath.IsAbs(f) {
			return nil, fmt.Errorf("HAProxy's file %q must be an absolute path", f)
		}
	}
	if cfg.Managed && (len(cfg.Files) == 0 || !filepath.IsAbs(cfg.Output)) {
		return nil, errors.New("a managed HAProxy needs files and the absolute path of a pipe for its messages")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	for _, d := range []struct {
		of       *time.Duration
		default_ time.Duration
	}{
		{&cfg.Policy.OldWorkerWait, 30 * time.Second},
		{&cfg.Policy.ReloadTimeout, time.Minute},
		{&cfg.Policy.StartTimeout, time.Minute},
		{&cfg.Policy.RestartMax, 10 * time.Second},
	} {
		if *d.of <= 0 {
			*d.of = d.default_
		}
	}
	p := &Process{
		cfg: cfg, master: runtime.NewMaster(cfg.MasterSocket), runtime: runtime.NewClient(cfg.RuntimeSocket),
		log: cfg.Log, events: make(chan Event, 1), turn: make(chan struct{}, 1),
	}
	if cfg.Managed {
		var err error
		if p.output, err = openOutput(cfg.Output, cfg.Log); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Close ends the reading of HAProxy's messages and the watching of its master. It
// does not end HAProxy.
func (p *Process) Close() error {
	p.mu.Lock()
	if p.running != nil {
		p.running.forget()
	}
	p.mu.Unlock()
	if p.output != nil {
		return p.output.Close()
	}
	return nil
}

// Runtime speaks to whichever worker accepts connections.
func (p *Process) Runtime() *runtime.Client { return p.runtime }

// Events tells when another worker serves. The newest event replaces one that
// nobody has taken yet. It is never closed.
func (p *Process) Events() <-chan Event { return p.events }

func (p *Process) tell(e Event) {
	for {
		select {
		case p.events <- e:
			return
		default:
		}
		select {
		case <-p.events:
		default:
		}
	}
}

// Last is the state as it was seen last, without asking.
func (p *Process) Last() State {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state
}

// State asks the master and the worker.
func (p *Process) State(ctx context.Context) (State, error) {
	procs, err := p.master.Processes(ctx)
	if err != nil {
		return State{}, err
	}
	return stateOf(procs), nil
}

func stateOf(procs runtime.Processes) State {
	return State{Master: procs.Master, Worker: procs.Worker(), Old: procs.Old, Version: procs.Version}
}

// executes is how long a master may take from closing its socket to listening again: it
// reads its files in between. What is left of one that was killed ends sooner.
const executes = 10 * time.Second

// Adopt takes over the HAProxy that runs already, without a reload. The error wraps
// [ErrNotRunning] if none does, [ErrNotOurs] if it is not the one configured.
func (p *Process) Adopt(ctx context.Context) (State, error) {
	if err := p.take(ctx); err != nil {
		return State{}, err
	}
	defer p.release()
	state, err := p.adopt(ctx)
	// A master that is being reloaded executes itself anew, and for a moment nobody
	// listens. Whoever started another one then would have both serve, the former with
	// what it knew.
	unseen := 0
	for deadline := time.Now().Add(executes); (errors.Is(err, ErrNotRunning) || errors.Is(err, errExecuting)) && time.Now().Before(deadline); {
		runs, unknown := masterRuns(p.cfg.MasterSocket)
		if unknown != nil {
			return State{}, fmt.Errorf("take over HAProxy: %w", unknown)
		}
		// One look may fall into the moment in which it has no arguments.
		if runs || errors.Is(err, errExecuting) {
			unseen = 0
		} else if unseen++; unseen == 3 {
			break
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return State{}, fmt.Errorf("take over HAProxy: %w", err)
		}
		state, err = p.adopt(ctx)
	}
	if err != nil {
		return State{}, err
	}
	p.limits(state)
	p.log.Info("took over the running HAProxy", "master", state.Master, "worker", state.Worker, "old_workers", len(state.Old), "version", state.Version)
	p.tell(Event{Cause: Adopted, State: state})
	return state, nil
}

func (p *Process) adopt(ctx context.Context) (State, error) {
	pid, err := p.master.Listener(ctx)
	if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOENT) {
		return State{}, fmt.Errorf("%w: nobody listens on %s", ErrNotRunning, p.cfg.MasterSocket)
	}
	if err != nil {
		return State{}, fmt.Errorf("take over HAProxy: %w", err)
	}
	// The pid that listened is the master's only if it is alive, says so itself, and
	// was so when its descriptor was opened.
	m, err := watchMaster(pid)
	if errors.Is(err, unix.ESRCH) {
		return State{}, fmt.Errorf("%w: the master %d has ended", ErrNotRunning, pid)
	}
	if err != nil {
		return State{}, fmt.Errorf("take over HAProxy: %w", err)
	}
	files := p.cfg.Files
	if !p.cfg.Managed {
		// Which files it runs from, and in which order, is its unit's business.
		files = nil
	}
	if err := verify(pid, p.cfg.MasterSocket, files); err != nil {
		m.forget()
		return State{}, fmt.Errorf("take over HAProxy: %w", err)
	}
	state, err := p.serving(ctx, m, func(s State) bool { return s.Master == pid })
	if err != nil {
		m.forget()
		return State{}, fmt.Errorf("take over HAProxy %d: %w", pid, err)
	}
	p.keep(m, state)
	return state, nil
}

// keep makes the master the one that is watched.
func (p *Process) keep(m *master, state State) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running != nil && p.running != m {
		p.running.forget()
	}
	p.running, p.state = m, state
}

// Start runs HAProxy from the files and returns when its worker answers. It is for
// when [Process.Adopt] found none. A HAProxy that does not come up is an error with
// what it said.
func (p *Process) Start(ctx context.Context) (State, error) {
	if err := p.take(ctx); err != nil {
		return State{}, err
	}
	defer p.release()
	state, err := p.start(ctx)
	if err != nil {
		return State{}, err
	}
	p.tell(Event{Cause: Started, State: state})
	return state, nil
}

func (p *Process) start(ctx context.Context) (State, error) {
	if !p.cfg.Managed {
		return State{}, fmt.Errorf("start HAProxy: %w", ErrNotManaged)
	}
	pipe, err := openPipe(p.cfg.Output)
	if err != nil {
		return State{}, err
	}
	defer pipe.Close()
	args := []string{"-W", "-S", p.cfg.MasterSocket + ",mode,600"}
	for _, f := range p.cfg.Files {
		args = append(args, "-f", f)
	}
	// Not CommandContext: HAProxy outlives whoever started it.
	cmd := exec.Command(p.cfg.Path, args...)
	cmd.Stdout, cmd.Stderr = pipe, pipe
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "NOTIFY_SOCKET=") || strings.HasPrefix(v, "LISTEN_") || strings.HasPrefix(v, "HAPROXY_MWORKER") || strings.HasPrefix(v, "HAPROXY_PROCESSES=")
	})
	mark := p.output.Mark()
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return State{}, fmt.Errorf("start HAProxy: %w", err)
	}
	go func() { _ = cmd.Wait() }()
	m, err := watchMaster(cmd.Process.Pid)
	if err != nil {
		return State{}, p.because(ctx, mark, fmt.Errorf("start HAProxy: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Policy.StartTimeout)
	defer cancel()
	state, err := p.serving(ctx, m, func(s State) bool { return s.Master == m.pid })
	if err != nil {
		_ = m.signal(unix.SIGTERM)
		if !m.wait(context.WithoutCancel(ctx), 2*time.Second) {
			_ = m.signal(unix.SIGKILL)
		}
		return State{}, p.because(ctx, mark, fmt.Errorf("start HAProxy: %w", err))
	}
	p.keep(m, state)
	p.limits(state)
	p.log.Info("started HAProxy", "master", state.Master, "worker", state.Worker, "version", state.Version, "maxconn", state.MaxConn, "open_files", state.Descriptors, "milliseconds", time.Since(begin).Milliseconds())
	return state, nil
}

// FailedError is a start or reload that HAProxy refused, with its own words.
type FailedError struct {
	Err    error
	Alerts []Message
}

func (e *FailedError) Error() string { return e.Err.Error() + ": " + texts(e.Alerts) }
func (e *FailedError) Unwrap() error { return e.Err }

// because adds the alerts HAProxy has written since the mark.
func (p *Process) because(ctx context.Context, mark int, err error) error {
	if found := alerts(p.output.Since(context.WithoutCancel(ctx), mark)); len(found) > 0 {
		return &FailedError{Err: err, Alerts: found}
	}
	return err
}

// errEnded: the master ended while it was waited for.
var errEnded = errors.New("HAProxy has ended")

// serving returns when the master tells of a worker that fits and this worker
// answers on the runtime socket.
func (p *Process) serving(ctx context.Context, m *master, fits func(State) bool) (State, error) {
	return p.await(ctx, m, fits, func(error) {})
}

// await is serving with somebody who is told what became of every question to the
// master.
func (p *Process) await(ctx context.Context, m *master, fits func(State) bool, asked func(error)) (State, error) {
	var last error // set by every turn that does not return
	for {
		procs, err := p.processes(ctx)
		asked(err)
		if err != nil {
			last = err
		} else if state := stateOf(procs); state.Worker == 0 || !fits(state) {
			last = fmt.Errorf("master %d has the worker %d", state.Master, state.Worker)
		} else if info, err := p.info(ctx); err != nil {
			last = fmt.Errorf("worker %d: %w", state.Worker, err)
		} else if info.PID != state.Worker {
			last = fmt.Errorf("%s is answered by process %d, not by worker %d", p.cfg.RuntimeSocket, info.PID, state.Worker)
		} else {
			state.Description = info.Description
			state.MaxConn, state.Descriptors, state.MostSockets = info.MaxConn, info.Descriptors, info.MostSockets
			return state, nil
		}
		select {
		case <-m.gone:
			return State{}, errEnded
		case <-ctx.Done():
			return State{}, fmt.Errorf("%w; %w", ctx.Err(), last)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// answerWithin bounds one question. A master that starts itself anew may take a
// connection and forget it: the question is better asked again.
const answerWithin = time.Second

func (p *Process) processes(ctx context.Context) (runtime.Processes, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return p.master.Processes(ctx)
}

func (p *Process) info(ctx context.Context) (runtime.Info, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	return p.runtime.Info(ctx)
}

// take waits for the turn to start, reload or stop HAProxy.
func (p *Process) take(ctx context.Context) error {
	select {
	case p.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for the turn to change HAProxy: %w", ctx.Err())
	}
}

func (p *Process) release() { <-p.turn }

// Stop ends a managed HAProxy and everything under it. With a drain time it closes
// its listeners at once and finishes what it has for so long; with 0 it ends now.
func (p *Process) Stop(ctx context.Context, drain time.Duration) error {
	if !p.cfg.Managed {
		return fmt.Errorf("stop HAProxy: %w", ErrNotManaged)
	}
	if err := p.take(ctx); err != nil {
		return err
	}
	defer p.release()
	p.mu.Lock()
	p.stopped = true
	m, state := p.running, p.state
	p.mu.Unlock()
	if m == nil {
		return nil
	}
	// A master that is starting itself anew, for a reload that was under way, would
	// miss the signals.
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	if now, err := p.serving(bounded, m, func(State) bool { return true }); err == nil {
		state = now
	}
	cancel()
	if drain > 0 && signalled(ctx, m, unix.SIGUSR1, drain) {
		return nil
	}
	// From here on it must end, whatever becomes of the context.
	if signalled(context.Background(), m, unix.SIGTERM, 5*time.Second) {
		return nil
	}
	p.log.Warn("HAProxy does not end: killing it", "master", state.Master, "worker", state.Worker)
	_ = m.signal(unix.SIGKILL)
	if !m.wait(context.Background(), 5*time.Second) {
		return fmt.Errorf("stop HAProxy: the master %d does not end", m.pid)
	}
	return nil
}

// signalled sends the signal until the master has ended, and is false if it had not in
// time. Repeating it changes nothing for a master that got it; one that was in the
// middle of starting itself anew did not.
func signalled(ctx context.Context, m *master, signal unix.Signal, within time.Duration) bool {
	for deadline := time.Now().Add(within); time.Now().Before(deadline) && ctx.Err() == nil; {
		_ = m.signal(signal)
		if m.wait(ctx, min(500*time.Millisecond, time.Until(deadline))) {
			return true
		}
	}
	return false
}
