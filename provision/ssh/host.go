package ssh

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/mi-lb/mi-lb/provision/redact"
)

// Host is a machine that is reached. It is safe for concurrent use.
type Host struct {
	target    Target
	transport transport
	log       *slog.Logger
	mask      *redact.Mask

	rootMu sync.Mutex
	root   *bool // whether the login is root's, once it is known
}

// transport runs shell lines and dials, there or here.
type transport interface {
	// run runs a line of shell and returns its exit code; the error is about not
	// having been able to, not about the code. It does not return while somebody
	// may write to stdout and stderr. When ctx ends the command is abandoned;
	// killing it is the caller's. An urgent one need not wait for a session.
	run(ctx context.Context, line string, urgent bool, stdin io.Reader, stdout, stderr io.Writer) (code int, err error)
	dial(ctx context.Context, network, address string) (net.Conn, error)
	close() error
}

// Name is the node's name.
func (h *Host) Name() string { return h.target.Name }

// Close ends the connection.
func (h *Host) Close() error { return h.transport.close() }

// DialContext connects from the host to a TCP address or ("unix") a socket.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return h.transport.dial(ctx, network, address)
}

// HTTPClient sends requests from the host. With a network and an address all go
// there, whatever host their URL names ("unix", "/run/docker.sock"); without, to
// the URL's host as the machine sees it ("http://127.0.0.1:8500").
func (h *Host) HTTPClient(network, address string) *http.Client {
	t := &http.Transport{DialContext: func(ctx context.Context, n, a string) (net.Conn, error) {
		if network != "" {
			n, a = network, address
		}
		return h.DialContext(ctx, n, a)
	}}
	return &http.Client{Transport: t}
}

// remote is a machine at the other end of a connection.
type remote struct{ client *client }

func (r remote) close() error { return r.client.Close() }

func (r remote) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return r.client.DialContext(ctx, network, address)
}

func (r remote) run(ctx context.Context, line string, urgent bool, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	sessions := r.client.sessions
	if urgent {
		sessions = r.client.urgent
	}
	if err := sessions.Acquire(ctx, 1); err != nil {
		return 0, err
	}
	defer sessions.Release(1)
	session, err := r.client.NewSession()
	if err != nil {
		return 0, err
	}
	defer session.Close()
	session.Stdout, session.Stderr = stdout, stderr
	in, err := session.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := session.Start(line); err != nil {
		return 0, err
	}
	go func() {
		_, _ = io.Copy(in, stdin) // a command need not read all of it
		_ = in.Close()
	}()
	ended := make(chan error, 1)
	go func() { ended <- session.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = session.Close() // so that Wait ends, if the other end plays along
		<-ended
		return 0, ctx.Err()
	}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if exit.Signal() != "" {
			return 128 + signalNumber(exit.Signal()), nil
		}
		return exit.ExitStatus(), nil
	}
	return 0, err
}

func signalNumber(name string) int {
	switch ssh.Signal(name) {
	case ssh.SIGHUP:
		return 1
	case ssh.SIGINT:
		return 2
	case ssh.SIGKILL:
		return 9
	case ssh.SIGPIPE:
		return 13
	}
	return 15
}

// local is the machine that mi-lb runs on.
type local struct{}

func (local) close() error { return nil }

func (local) dial(ctx context.Context, network, address string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, address)
}

func (local) run(ctx context.Context, line string, _ bool, stdin io.Reader, stdout, stderr io.Writer) (int, error) {
	command := exec.Command("sh", "-c", line)
	// A session of its own, as sshd gives one: no terminal, and killed as a whole.
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	command.Stdout, command.Stderr = stdout, stderr
	command.WaitDelay = time.Second // a child in the background may keep the pipes open
	in, err := command.StdinPipe()
	if err != nil {
		return 0, err
	}
	if err := command.Start(); err != nil {
		return 0, err
	}
	go func() {
		_, _ = io.Copy(in, stdin) // a command need not read all of it
		_ = in.Close()
	}()
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	select {
	case err = <-ended:
	case <-ctx.Done():
		_ = syscall.Kill(-command.Process.Pid, syscall.SIGKILL) // it may have ended
		<-ended
		return 0, ctx.Err()
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0, nil
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), nil
		}
		return exit.ExitCode(), nil
	}
	return 0, err
}
