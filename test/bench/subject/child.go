package subject

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/edge"
)

// child is a process that does not outlive this one.
type child struct {
	command *exec.Cmd
	ended   chan struct{}
	err     error // valid once ended is closed
}

// startChild runs a command until the scope ends; what it prints is appended to the
// file.
func startChild(p *program.Program, logFile, path string, arguments ...string) *child {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	p.Check(err)
	defer log.Close() // the process has its own copy
	c := &child{command: exec.Command(path, arguments...), ended: make(chan struct{})}
	c.command.Stdout, c.command.Stderr = log, log
	c.command.Env = edge.Environment()
	c.command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// That signal is sent when the thread that started the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.command.Start()
		started <- err
		if err == nil {
			c.err = c.command.Wait()
			close(c.ended)
		}
	}()
	p.Check(<-started)
	p.Cleanup(c.end)
	return c
}

// end has the process end, at once if it does not do so by itself.
func (c *child) end() {
	_ = c.command.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(2 * time.Second):
		_ = c.command.Process.Kill()
		<-c.ended
	}
}

func (c *child) pid() int { return c.command.Process.Pid }

func (c *child) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}
