package subject

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/child"
)

// startChild runs a command until the scope ends; what it prints is appended to the
// file.
func startChild(p *program.Program, logFile, path string, arguments ...string) *child.Process {
	log, err := os.OpenFile(logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	p.Check(err)
	defer log.Close() // the process has its own copy
	command := exec.Command(path, arguments...)
	command.Stdout, command.Stderr = log, log
	command.Env = child.Environment()
	c, err := child.Start(command, syscall.SIGKILL)
	p.Check(err)
	p.Cleanup(func() { c.End(syscall.SIGTERM, 2*time.Second) })
	return c
}
