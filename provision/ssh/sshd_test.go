package ssh

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Logins of this machine that the tests make and remove: one that sudo asks for a
// password, one that it does not, and one that may not use it.
var (
	asked  = fmt.Sprintf("milb-a%d", os.Getpid())
	free   = fmt.Sprintf("milb-f%d", os.Getpid())
	denied = fmt.Sprintf("milb-d%d", os.Getpid())
)

const loginPassword = "Pa55-of-the-login"

func TestMain(m *testing.M) {
	os.Exit(withLogins(m))
}

func withLogins(m *testing.M) int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "these tests make logins and run sshd, and need root")
		return 1
	}
	for _, program := range []string{"sshd", "ssh-agent", "ssh-keygen", "sudo"} {
		if _, err := exec.LookPath(program); err != nil {
			fmt.Fprintf(os.Stderr, "%s is missing; run test/prerequisites test\n", program)
			return 1
		}
	}
	sudoers := filepath.Join("/etc/sudoers.d", strings.ReplaceAll(asked, "-", "_"))
	defer os.Remove(sudoers)
	for _, login := range []string{asked, free, denied} {
		if out, err := exec.Command("useradd", "--create-home", "--shell", "/bin/sh", login).CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "make the login %s: %v: %s\n", login, err, out)
			return 1
		}
		defer func() { _ = exec.Command("userdel", "--remove", "--force", login).Run() }()
		command := exec.Command("chpasswd")
		command.Stdin = strings.NewReader(login + ":" + loginPassword + "\n")
		if out, err := command.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "set the password of %s: %v: %s\n", login, err, out)
			return 1
		}
	}
	rules := fmt.Sprintf("%s ALL=(ALL) ALL\n%s ALL=(ALL) NOPASSWD: ALL\n", asked, free)
	if err := os.WriteFile(sudoers, []byte(rules), 0o440); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(filepath.Dir(clientKeyFile)) }()
	return m.Run()
}

// sshd is a real SSH server on a free port of the loopback.
type sshd struct {
	t         *testing.T
	port      int
	directory string
	log       string
	process   *os.Process
	keys      map[string]string // public host keys, by type
}

func run(t *testing.T, name string, arguments ...string) string {
	t.Helper()
	out, err := exec.Command(name, arguments...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v: %s", name, arguments, err, out)
	}
	return string(out)
}

var (
	clientKeyOnce sync.Once
	clientKeyFile string
	rsaKeyFile    string // of all servers: it takes long to make
)

// clientKey is a key that all servers accept.
func clientKey(t *testing.T) string {
	t.Helper()
	clientKeyOnce.Do(func() {
		directory, err := os.MkdirTemp("", "mi-lb-ssh-key")
		if err != nil {
			t.Fatal(err)
		}
		clientKeyFile = filepath.Join(directory, "id")
		run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", clientKeyFile)
		rsaKeyFile = filepath.Join(directory, "rsa")
		run(t, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", rsaKeyFile)
	})
	return clientKeyFile
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// startSSHD starts a server with more lines of configuration.
func startSSHD(t *testing.T, more ...string) *sshd {
	t.Helper()
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	s := &sshd{t: t, port: freePort(t), directory: t.TempDir(), keys: map[string]string{}}
	s.log = filepath.Join(s.directory, "log")
	var config strings.Builder
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		file := filepath.Join(s.directory, "host_"+kind)
		if kind == "rsa" {
			clientKey(t)
			file = rsaKeyFile
		} else {
			run(t, "ssh-keygen", "-q", "-t", kind, "-N", "", "-f", file)
		}
		public, err := os.ReadFile(file + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		s.keys[kind] = strings.Join(strings.Fields(string(public))[:2], " ")
		fmt.Fprintf(&config, "HostKey %s\n", file)
	}
	authorized := filepath.Join(s.directory, "authorized_keys")
	public, err := os.ReadFile(clientKey(t) + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(authorized, public, 0o644); err != nil {
		t.Fatal(err)
	}
	// The login reads it: nothing above may keep it from that.
	for d := s.directory; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Fprintf(&config, "ListenAddress 127.0.0.1\nPort %d\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nLogLevel VERBOSE\nAllowStreamLocalForwarding yes\n", s.port, authorized)
	for _, line := range more {
		config.WriteString(strings.ReplaceAll(line, "DIRECTORY", s.directory) + "\n")
	}
	file := filepath.Join(s.directory, "sshd_config")
	if err := os.WriteFile(file, []byte(config.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath("sshd")
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(path, "-D", "-f", file, "-E", s.log)
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	s.process = command.Process
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
		if t.Failed() {
			log, _ := os.ReadFile(s.log)
			t.Logf("sshd on port %d:\n%s", s.port, tail(string(log), 3000))
		}
	})
	await(t, func() bool {
		conn, err := net.Dial("tcp", s.address())
		if err != nil {
			return false
		}
		conn.Close()
		return true
	})
	return s
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func await(t *testing.T, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !condition() {
		select {
		case <-ctx.Done():
			t.Fatal("it did not become so")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *sshd) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// target is the server as a target, logged in to with the key.
func (s *sshd) target(user string) Target {
	return Target{Name: "host-01", Connection: cluster.Connection{Host: "127.0.0.1", Port: s.port, User: user, KeyFile: clientKey(s.t), Become: cluster.BecomeAuto}}
}

func (s *sshd) logged(text string) int {
	log, err := os.ReadFile(s.log)
	if err != nil {
		s.t.Fatal(err)
	}
	return strings.Count(string(log), text)
}

// known writes a known_hosts file with the keys of servers.
func known(t *testing.T, kinds []string, servers ...*sshd) string {
	t.Helper()
	var b strings.Builder
	for _, s := range servers {
		for _, kind := range kinds {
			fmt.Fprintf(&b, "[127.0.0.1]:%d %s\n", s.port, s.keys[kind])
		}
	}
	file := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

var allKinds = []string{"ed25519", "ecdsa", "rsa"}

// dialer is one that knows the servers and nothing of who runs the tests. The log
// is checked for secrets at the end.
func dialer(t *testing.T, change func(*Options), servers ...*sshd) *Dialer {
	t.Helper()
	log := &safeBuffer{}
	options := Options{
		KnownHosts: known(t, allKinds, servers...), ConfigFile: "none", AgentSocket: "none", Keys: []string{},
		Log: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})), Mask: &redact.Mask{},
	}
	if change != nil {
		change(&options)
	}
	d := NewDialer(options)
	t.Cleanup(func() {
		d.Close()
		if strings.Contains(log.String(), loginPassword) {
			t.Error("the log has the password")
		}
	})
	return d
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func connect(t *testing.T, d *Dialer, target Target) *Host {
	t.Helper()
	h, err := d.Connect(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
