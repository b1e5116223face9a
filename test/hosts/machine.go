package hosts

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Machine is one machine. Its methods return when what they do is done.
type Machine struct {
	Name    string
	Address netip.Addr
	// HostKey is sshd's.
	HostKey ssh.PublicKey

	hosts *Hosts
	link  string // this machine's end of its cable, while that is pulled
}

// create makes the machine and starts it.
func (m *Machine) create(ctx context.Context) error {
	var key string
	var err error
	if m.HostKey, key, err = hostKey(); err != nil {
		return fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	authorized := string(ssh.MarshalAuthorizedKey(m.hosts.publicKey))
	content, err := archive(map[string]string{
		"/etc/ssh/ssh_host_ed25519_key":    key,
		"/root/.ssh/authorized_keys":       authorized,
		"/home/admin/.ssh/authorized_keys": authorized, "/home/deploy/.ssh/authorized_keys": authorized, "/home/guest/.ssh/authorized_keys": authorized,
		"/etc/apt/apt.conf.d/99proxy": fmt.Sprintf("Acquire::http::Proxy %q;\n", m.hosts.proxy),
		"/etc/machine/hostname":       m.Name + "\n",
		"/etc/machine/hosts":          fmt.Sprintf("127.0.0.1\tlocalhost\n127.0.1.1\t%s\n", m.Name),
		"/etc/machine/resolv.conf":    fmt.Sprintf("nameserver %s\n", m.hosts.Gateway),
	})
	if err != nil {
		return fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	_, err = m.docker(ctx, "create", "--name", m.Name, "--hostname", m.Name, "--network", networkName, "--ip", m.Address.String(),
		"--cap-add", "ALL", "--cap-drop", "SYS_RESOURCE", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined",
		"--tmpfs", "/run:exec,mode=755", "--tmpfs", "/tmp:exec,mode=1777",
		"--volume", "/var/lib/docker", "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns", "host",
		"--stop-signal", "SIGRTMIN+3", imageName)
	if err != nil {
		return fmt.Errorf("start machine %s: %w", m.Name, err)
	}
	command := m.command(ctx, "cp", "-a", "-", m.Name+":/")
	command.Stdin = bytes.NewReader(content)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("start machine %s: %w: %s", m.Name, err, output)
	}
	return m.PowerOn(ctx)
}

// PowerOff takes its power away: nothing on it gets a chance to say goodbye.
func (m *Machine) PowerOff(ctx context.Context) error {
	_, err := m.docker(ctx, "kill", "--signal", "KILL", m.Name)
	if err == nil {
		_, err = m.docker(ctx, "wait", m.Name)
	}
	return err
}

// Shutdown stops its services in order and turns it off.
func (m *Machine) Shutdown(ctx context.Context) error {
	_, err := m.docker(ctx, "stop", "--time", "90", m.Name)
	return err
}

// PowerOn starts it, with the disks, name and address that it had, and returns
// when its sshd answers.
func (m *Machine) PowerOn(ctx context.Context) error {
	if _, err := m.docker(ctx, "start", m.Name); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		err := answers(ctx, m.Address.String()+":22")
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			state, _ := m.docker(context.Background(), "ps", "-a", "--filter", "name=^"+m.Name+"$", "--format", "{{.Status}}")
			log, _ := m.docker(context.Background(), "logs", "--tail", "20", m.Name)
			return fmt.Errorf("start machine %s: sshd does not answer: %w; the container is %q; %s", m.Name, err, state, log)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Run runs a line of shell on it as root, without SSH, and returns what it prints on
// standard output, without the last newline.
func (m *Machine) Run(ctx context.Context, line string) (string, error) {
	output, err := m.docker(ctx, "exec", m.Name, "/bin/sh", "-c", line)
	if err != nil {
		return "", fmt.Errorf("on %s: %s: %w", m.Name, line, err)
	}
	return output, nil
}

// Write puts a file onto it, owned by root.
func (m *Machine) Write(ctx context.Context, path, content, mode string) error {
	command := m.command(ctx, "exec", "-i", m.Name, "/bin/sh", "-c", fmt.Sprintf("cat >%s && chmod %s %s", path, mode, path))
	command.Stdin = strings.NewReader(content)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s on %s: %w: %s", path, m.Name, err, output)
	}
	return nil
}

func (m *Machine) docker(ctx context.Context, arguments ...string) (string, error) {
	return m.hosts.engine.Docker(ctx, arguments...)
}

func (m *Machine) command(ctx context.Context, arguments ...string) *exec.Cmd {
	command := exec.CommandContext(ctx, "docker", arguments...)
	command.Env = append(os.Environ(), "DOCKER_HOST="+m.hosts.engine.Host(), "DOCKER_CONTEXT=", "DOCKER_API_VERSION=", "DOCKER_TLS_VERIFY=", "DOCKER_CERT_PATH=")
	return command
}
