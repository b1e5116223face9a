package child

import (
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// Process is a program that was started. It is safe for concurrent use.
type Process struct {
	command *exec.Cmd
	ended   chan struct{}
	err     error // valid once ended is closed
}

// Start starts a command in a process group of its own, unless it says otherwise. The
// kernel sends it the signal when this program ends: SIGKILL, or what lets it take
// its own children with it.
func Start(command *exec.Cmd, dying syscall.Signal) (*Process, error) {
	return StartWith(command, dying, command.Start)
}

// StartWith is [Start] for a command that something else starts, such as what gives it
// a terminal.
func StartWith(command *exec.Cmd, dying syscall.Signal, start func() error) (*Process, error) {
	if command.SysProcAttr == nil {
		command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	}
	command.SysProcAttr.Pdeathsig = dying
	p := &Process{command: command, ended: make(chan struct{})}
	started := make(chan error)
	go func() {
		// The signal is sent when the thread that started the child ends, so that
		// thread is kept until the child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := start()
		started <- err
		if err == nil {
			p.err = command.Wait()
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// PID is its process id.
func (p *Process) PID() int { return p.command.Process.Pid }

// Ended is closed when it has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// IsRunning says whether it has not ended.
func (p *Process) IsRunning() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Err is how it ended, as [exec.Cmd.Wait] says; nil while it runs.
func (p *Process) Err() error {
	if p.IsRunning() {
		return nil
	}
	return p.err
}

// Used is the processor's time that it took, with that of its children, once it has
// ended.
func (p *Process) Used() time.Duration {
	if p.IsRunning() {
		return 0
	}
	return p.command.ProcessState.UserTime() + p.command.ProcessState.SystemTime()
}

// Signal sends it a signal.
func (p *Process) Signal(signal syscall.Signal) error { return p.command.Process.Signal(signal) }

// End signals it and waits until it has ended; if it takes longer than the grace, it
// is killed.
func (p *Process) End(signal syscall.Signal, grace time.Duration) {
	_ = p.Signal(signal) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(grace):
		_ = p.command.Process.Kill()
		<-p.ended
	}
}
