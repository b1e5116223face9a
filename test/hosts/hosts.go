package hosts

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/mi-lb/mi-lb/test/docker"
)

// Logins of every machine. All have the test's key and [Password].
const (
	// Admin may use sudo without a password.
	Admin = "admin"
	// Deploy may use sudo with [Password].
	Deploy = "deploy"
	// Guest may not use sudo.
	Guest = "guest"
	// Root is root.
	Root = "root"

	// Password is that of all logins.
	Password = "secret"
)

// Spec says which machines there are to be.
type Spec struct {
	// Names of the machines, which are their host names.
	Names []string
	// Packages are what the machines have already, with no unit of them enabled:
	// installing a hundred libraries on every machine takes minutes.
	Packages []string
	// Dir gets the key and the known hosts; empty is a temporary directory.
	Dir string
	// LogOutput gets what the Docker Engine prints.
	LogOutput io.Writer
}

// Hosts are running machines.
type Hosts struct {
	// Machines are in the order of the names.
	Machines []*Machine
	// KeyFile is the private key that all logins accept.
	KeyFile string
	// KnownHosts has the machines' host keys, by address.
	KnownHosts string
	// Gateway is this machine's address on their network.
	Gateway netip.Addr

	engine    *docker.Engine
	mirror    *mirror
	names     *names
	proxy     string
	network   netip.Prefix
	dir       string
	removeDir bool
	publicKey ssh.PublicKey
}

const imageName, networkName = "machine", "machines"

// startsAtOnce is how many machines boot at a time.
const startsAtOnce = 3

// Start runs machines until the test ends. Those that a test stopped, cut off or
// broke are removed like others.
func Start(t testing.TB, spec Spec) *Hosts {
	t.Helper()
	if spec.Dir == "" {
		spec.Dir = t.TempDir()
	}
	// Making the image takes minutes, once.
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	h, err := Open(ctx, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// Open runs machines until [Hosts.Close]. It returns when their sshd answers.
func Open(ctx context.Context, spec Spec) (_ *Hosts, err error) {
	h := &Hosts{dir: spec.Dir}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if h.dir == "" {
		if h.dir, err = os.MkdirTemp("", "mi-lb-hosts-"); err != nil {
			return nil, fmt.Errorf("start machines: %w", err)
		}
		h.removeDir = true
	}
	if err := h.makeKey(); err != nil {
		return nil, fmt.Errorf("start machines: %w", err)
	}
	if h.engine, err = docker.Start(ctx, docker.Options{LogOutput: spec.LogOutput}); err != nil {
		return nil, fmt.Errorf("start machines: %w", err)
	}
	if h.network, err = h.engine.Network(ctx, networkName); err != nil {
		return nil, fmt.Errorf("start machines: %w", err)
	}
	h.Gateway = h.network.Addr().Next()
	if h.names, err = startNames(h.Gateway); err != nil {
		return nil, fmt.Errorf("start machines: %w", err)
	}
	if err := h.makeImage(ctx, spec.Packages); err != nil {
		return nil, fmt.Errorf("start machines: %w", err)
	}
	if err := h.Add(ctx, spec.Names...); err != nil {
		return nil, err
	}
	return h, nil
}

// Close removes the machines.
func (h *Hosts) Close() {
	if h.engine != nil {
		h.engine.Stop()
	}
	if h.mirror != nil {
		h.mirror.close()
	}
	if h.names != nil {
		h.names.close()
	}
	if h.removeDir {
		_ = os.RemoveAll(h.dir)
	}
}

// Machine is the machine of that name; nil if there is none.
func (h *Hosts) Machine(name string) *Machine {
	for _, m := range h.Machines {
		if m.Name == name {
			return m
		}
	}
	return nil
}

// Add starts further machines.
func (h *Hosts) Add(ctx context.Context, names ...string) error {
	var added []*Machine
	address := h.Gateway
	for range h.Machines {
		address = address.Next()
	}
	for _, name := range names {
		address = address.Next()
		if !h.network.Contains(address) || h.Machine(name) != nil {
			return fmt.Errorf("start machine %s: there is no address for it, or it exists", name)
		}
		m := &Machine{Name: name, Address: address, hosts: h}
		h.Machines = append(h.Machines, m)
		added = append(added, m)
	}
	var group errgroup.Group
	group.SetLimit(startsAtOnce)
	for _, m := range added {
		group.Go(func() error { return m.create(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return h.Trust()
}

// makeKey makes the key that logins accept.
func (h *Hosts) makeKey() error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return err
	}
	if h.publicKey, err = ssh.NewPublicKey(public); err != nil {
		return err
	}
	h.KeyFile, h.KnownHosts = filepath.Join(h.dir, "id_ed25519"), filepath.Join(h.dir, "known_hosts")
	return os.WriteFile(h.KeyFile, pem.EncodeToMemory(block), 0o600)
}

// makeImage gives the engine the machines' image.
func (h *Hosts) makeImage(ctx context.Context, packages []string) error {
	cache, err := cacheDirectory()
	if err != nil {
		return err
	}
	sources, err := readSources()
	if err != nil {
		return err
	}
	if h.mirror, h.proxy, err = startMirror(filepath.Join(cache, "packages"), sources.hosts, h.Gateway.String()); err != nil {
		return err
	}
	path, err := image(ctx, cache, sources, h.proxy, packages)
	if err != nil {
		return err
	}
	_, err = h.engine.Docker(ctx, "import", "--change", `CMD ["/sbin/machine-start"]`, "--change", "ENV container=docker", path, imageName)
	return err
}

// Trust writes the machines' present host keys into the known hosts.
func (h *Hosts) Trust() error {
	var text strings.Builder
	for _, m := range h.Machines {
		fmt.Fprintf(&text, "%s %s", m.Address, ssh.MarshalAuthorizedKey(m.HostKey))
	}
	return os.WriteFile(h.KnownHosts, []byte(text.String()), 0o600)
}

// archive is a tar of files by path, owned by root unless they are in a home.
func archive(files map[string]string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	// The first three users of a Debian system.
	owners := map[string]int{Admin: 1000, Deploy: 1001, Guest: 1002}
	for path, text := range files {
		header := &tar.Header{Name: strings.TrimPrefix(path, "/"), Mode: 0o644, Size: int64(len(text))}
		if strings.HasPrefix(path, "/home/") {
			header.Uid = owners[strings.Split(path, "/")[2]]
			header.Gid = header.Uid
		}
		if strings.HasSuffix(path, "_key") || strings.HasSuffix(path, "authorized_keys") {
			header.Mode = 0o600
		}
		if err := errors.Join(w.WriteHeader(header), writeAll(w, text)); err != nil {
			return nil, err
		}
	}
	return b.Bytes(), w.Close()
}

func writeAll(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// hostKey is a new host key, as sshd keeps it.
func hostKey() (ssh.PublicKey, string, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, "", err
	}
	key, err := ssh.NewPublicKey(public)
	return key, string(pem.EncodeToMemory(block)), err
}

// answers says whether sshd at an address greets.
func answers(ctx context.Context, address string) error {
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
	greeting := make([]byte, 4)
	if _, err := io.ReadFull(conn, greeting); err != nil {
		return err
	}
	if string(greeting) != "SSH-" {
		return fmt.Errorf("%s greets with %q", address, greeting)
	}
	return nil
}
