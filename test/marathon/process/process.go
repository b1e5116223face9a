package process

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrIsolation says that the kernel refused a namespace to this program.
var ErrIsolation = errors.New("a network namespace per task needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN)")

// supervise keeps a shell in front of the command: as the first process of a
// pid namespace it ignores the SIGTERM that the whole group gets, so that the
// command can take its time, and its end is the end of everything below it.
const supervise = `trap : TERM; "$@"; exit $?`

// Spec is what to run.
type Spec struct {
	// Argv is the command and its arguments.
	Argv []string
	// Env is the whole environment, as "NAME=value".
	Env []string
	// Dir is the working directory.
	Dir string
	// Output gets standard output and standard error; nil discards them.
	Output *os.File
	// Address, where valid, asks for a network namespace in which this IPv4
	// address is the only one beside 127.0.0.0/8.
	Address netip.Addr
}

// Exit is how a process ended.
type Exit struct {
	// Code is the exit code; 128 plus the signal's number after a signal.
	Code int
}

// Process is a running command with all of its descendants.
type Process struct {
	spec  Spec
	cmd   *exec.Cmd
	calls chan func()
	ended chan struct{} // everything is gone, the exit is known
	exit  Exit

	// forwards are the ports that are forwarded to it.
	forwards sync.WaitGroup

	mu     sync.Mutex
	reaped bool
}

// Start runs the command. The error wraps [ErrIsolation] where a namespace was
// asked for and the kernel refused it.
func Start(spec Spec) (*Process, error) {
	if len(spec.Argv) == 0 {
		return nil, errors.New("start process: no command")
	}
	if spec.Address.IsValid() && !spec.Address.Is4() {
		return nil, fmt.Errorf("start process: %s is not an IPv4 address", spec.Address)
	}
	p := &Process{spec: spec, calls: make(chan func()), ended: make(chan struct{})}
	started := make(chan error, 1)
	onOwnThread(func() { p.hold(started) })
	if err := <-started; err != nil {
		return nil, err
	}
	go p.wait()
	return p, nil
}

// onOwnThread runs f in a goroutine on a thread of its own, which dies with f:
// never the main thread, whose namespaces the kernel shows as the program's.
func onOwnThread(f func()) {
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			f()
			return // still locked: the runtime ends the thread
		}
		locked := make(chan struct{})
		go func() {
			runtime.LockOSThread()
			close(locked)
			f()
		}()
		<-locked
		runtime.UnlockOSThread()
	}()
}

// hold starts the command and stays its parent thread until everything is gone:
// the kernel sends the parent-death signal when this very thread ends.
func (p *Process) hold(started chan<- error) {
	if p.spec.Address.IsValid() {
		restore, err := enterNetwork(p.spec.Address)
		if err != nil {
			started <- fmt.Errorf("start %q: %w", p.spec.Argv[0], err)
			return
		}
		defer restore()
	}
	err := p.start(os.Geteuid() == 0)
	if errors.Is(err, unix.EPERM) {
		err = p.start(false)
	}
	started <- err
	if err != nil {
		return
	}
	for {
		select {
		case call := <-p.calls:
			call()
		case <-p.ended:
			return
		}
	}
}

func (p *Process) start(pidNamespace bool) error {
	argv := append([]string{"-c", supervise, "supervise"}, p.spec.Argv...)
	cmd := exec.Command("/bin/sh", argv...)
	cmd.Env, cmd.Dir = p.spec.Env, p.spec.Dir
	if p.spec.Output != nil {
		cmd.Stdout, cmd.Stderr = p.spec.Output, p.spec.Output
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if pidNamespace {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %q in %q: %w", p.spec.Argv[0], p.spec.Dir, err)
	}
	p.cmd = cmd
	return nil
}

func (p *Process) wait() {
	defer close(p.ended)
	pid := p.cmd.Process.Pid
	// Its number stays taken until it is reaped, so the group can still be
	// addressed without hitting a stranger.
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	p.mu.Lock()
	p.reaped = true
	p.mu.Unlock()
	_ = p.cmd.Wait() // the exit code below says all there is to say
	p.exit = Exit{Code: p.cmd.ProcessState.ExitCode()}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		p.exit.Code = 128 + int(status.Signal())
	}
}

// PID is the process group's number on the host.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the command and all of its descendants are gone.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Exit waits until it has ended and its ports are given back, and says how it ended.
func (p *Process) Exit() Exit {
	<-p.ended
	p.forwards.Wait()
	return p.exit
}

// Terminate sends SIGTERM to all of the process group.
func (p *Process) Terminate() { p.signal(syscall.SIGTERM) }

// Kill sends SIGKILL to all of the process group.
func (p *Process) Kill() { p.signal(syscall.SIGKILL) }

func (p *Process) signal(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.reaped {
		_ = syscall.Kill(-p.cmd.Process.Pid, sig) // gone already is what was wanted
	}
}

// Run runs another command beside the process, in its network namespace, with
// its environment and directory, and waits for it. The error is that of a
// command that failed, or of ctx.
func (p *Process) Run(ctx context.Context, argv []string) error {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = p.spec.Env, p.spec.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	if !p.onThread(func() { err = cmd.Start() }) {
		return errors.New("run beside process: it has ended")
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", argv[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("run %q: %w", argv[0], err)
	}
	return nil
}

// onThread runs f on the thread that is in the process's namespaces, and says
// whether it could.
func (p *Process) onThread(f func()) bool {
	done := make(chan struct{})
	select {
	case p.calls <- func() { f(); close(done) }:
		<-done
		return true
	case <-p.ended:
		return false
	}
}
