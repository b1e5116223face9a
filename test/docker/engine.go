package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/child"
)

// Options of an engine. The zero value is one that starts.
type Options struct {
	// LogOutput gets what the engine prints; an error shows the last of it anyway.
	LogOutput io.Writer
	// Arguments are added to dockerd's.
	Arguments []string
}

// Engine is a running Docker Engine, a child of this process.
type Engine struct {
	options Options
	dir     string
	bridge  string
	subnet  int // the n of 10.n.0.0/16
	process *child.Process
}

// Start runs an engine and returns when its API answers. The context ends the
// wait, not the engine: that is what [Engine.Stop] is for.
func Start(ctx context.Context, options Options) (*Engine, error) {
	for _, program := range []string{"dockerd", "docker", "ip"} {
		if _, err := exec.LookPath(program); err != nil {
			return nil, fmt.Errorf("start Docker: %w; on Debian: apt-get install docker.io iproute2", err)
		}
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("start Docker: it needs root")
	}
	removeStale()
	// Docker puts sockets in it, whose paths must be short.
	dir, err := os.MkdirTemp("/tmp", folderPrefix+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, fmt.Errorf("start Docker: %w", err)
	}
	e := &Engine{options: options, dir: dir}
	// A file of its own: the machine's /etc/docker/daemon.json is not for it.
	if err := os.WriteFile(filepath.Join(dir, "daemon.json"), []byte("{}"), 0o600); err != nil {
		return nil, fmt.Errorf("start Docker: %w", err)
	}
	if err := e.createBridge(ctx); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start Docker: %w", err)
	}
	if err := e.launch(ctx); err != nil {
		e.Stop()
		return nil, err
	}
	return e, nil
}

// Host is the engine's address, as DOCKER_HOST has it.
func (e *Engine) Host() string { return "unix://" + filepath.Join(e.dir, "docker.sock") }

// BridgeAddress is this machine's address on the default bridge, where ports can
// be published that only containers and this machine reach.
func (e *Engine) BridgeAddress() string { return fmt.Sprintf("10.%d.0.1", e.subnet) }

// Network makes a bridge network of that name and returns its addresses; this
// machine has the first one. Containers on it can be given addresses of the
// caller's choice. It ends with the engine.
func (e *Engine) Network(ctx context.Context, name string) (netip.Prefix, error) {
	n := counter()
	subnet := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(e.subnet), byte(n), 0}), 24)
	_, err := e.Docker(ctx, "network", "create", "--subnet", subnet.String(), "--gateway", subnet.Addr().Next().String(),
		"--opt", "com.docker.network.bridge.name="+bridgeName(n), name)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("make network %s: %w", name, err)
	}
	return subnet, nil
}

func (e *Engine) launch(ctx context.Context) error {
	arguments := append([]string{
		"--host", e.Host(), "--data-root", filepath.Join(e.dir, "data"), "--exec-root", filepath.Join(e.dir, "exec"),
		"--pidfile", filepath.Join(e.dir, "docker.pid"), "--config-file", filepath.Join(e.dir, "daemon.json"),
		"--bridge", e.bridge, "--default-address-pool", fmt.Sprintf("base=10.%d.128.0/17,size=24", e.subnet),
		"--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--userland-proxy=true",
		"--shutdown-timeout", "3", "--log-level", "warn",
	}, e.options.Arguments...)
	said := &child.Tail{}
	command := exec.Command("dockerd", arguments...)
	command.Stdout = said
	if e.options.LogOutput != nil {
		command.Stdout = io.MultiWriter(said, e.options.LogOutput)
	}
	command.Stderr = command.Stdout
	command.WaitDelay = time.Second
	// SIGTERM, so that dockerd takes its containers with it.
	process, err := child.Start(command, syscall.SIGTERM)
	if err != nil {
		return fmt.Errorf("start Docker: %w", err)
	}
	e.process = process
	for {
		if _, err = e.Docker(ctx, "version", "--format", "{{.Server.APIVersion}}"); err == nil {
			return nil
		}
		select {
		case <-process.Ended():
			return fmt.Errorf("start Docker: dockerd ended: %v\n%s", process.Err(), said)
		case <-ctx.Done():
			return fmt.Errorf("start Docker: %w\n%s", ctx.Err(), said)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Docker runs the docker command against the engine and returns what it prints
// on standard output, without the last newline.
func (e *Engine) Docker(ctx context.Context, arguments ...string) (string, error) {
	command := exec.CommandContext(ctx, "docker", arguments...)
	command.Env = append(os.Environ(), "DOCKER_HOST="+e.Host(), "DOCKER_CONFIG="+filepath.Join(e.dir, "config"),
		"DOCKER_CONTEXT=", "DOCKER_API_VERSION=", "DOCKER_TLS_VERIFY=", "DOCKER_CERT_PATH=")
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		return "", fmt.Errorf("docker %s: %w: %s", arguments[0], err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimSuffix(stdout.String(), "\n"), nil
}

// Shutdown ends the engine as systemd would, and with it its containers. It can
// be started again with [Engine.Relaunch].
func (e *Engine) Shutdown() { e.process.End(syscall.SIGTERM, endPatience) }

// Kill ends the engine without notice; containers go on.
func (e *Engine) Kill() { e.process.End(syscall.SIGKILL, endPatience) }

// Relaunch starts the engine again with the same data.
func (e *Engine) Relaunch(ctx context.Context) error {
	// Where nobody reaps orphans, the containerd of a killed engine is a zombie
	// that the next engine would take for running.
	for _, file := range []string{"docker.pid", "exec/containerd/containerd.pid", "exec/containerd/containerd.sock"} {
		if err := os.Remove(filepath.Join(e.dir, file)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("start Docker again: %w", err)
		}
	}
	return e.launch(ctx)
}

// Stop ends the engine and its containers and removes everything.
func (e *Engine) Stop() {
	if e.process != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if ids, err := e.Docker(ctx, "ps", "-aq"); err == nil && ids != "" {
			_, _ = e.Docker(ctx, append([]string{"rm", "-f"}, strings.Fields(ids)...)...)
		}
		_, _ = e.Docker(ctx, "network", "prune", "-f")
		e.process.End(syscall.SIGTERM, endPatience)
	}
	remove(e.dir, e.bridge)
}

// endPatience is how long dockerd may take to end.
const endPatience = 15 * time.Second

const (
	folderPrefix = "mi-docker-"
	bridgePrefix = "midk"

	maxInterfaceName = 15 // IFNAMSIZ without its 0
)

// bridgeName is a name that says whose the bridge is, for [removeStale].
func bridgeName(n uint32) string {
	name := fmt.Sprintf("%s%dn%d", bridgePrefix, os.Getpid(), n)
	return name[:min(len(name), maxInterfaceName)]
}

// createBridge makes the bridge, in the first 10.n.0.0/16 that no interface has.
func (e *Engine) createBridge(ctx context.Context) error {
	e.bridge = bridgeName(counter())
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return err
	}
	used := map[int]bool{}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.To4()[0] == 10 {
			used[int(n.IP.To4()[1])] = true
		}
	}
	for n := 100 + os.Getpid()%100; n < 255; n++ {
		if used[n] {
			continue
		}
		e.subnet = n
		for _, arguments := range [][]string{
			{"link", "add", e.bridge, "type", "bridge"},
			{"addr", "add", fmt.Sprintf("10.%d.0.1/24", n), "dev", e.bridge},
			{"link", "set", e.bridge, "up"},
		} {
			if out, err := exec.CommandContext(ctx, "ip", arguments...).CombinedOutput(); err != nil {
				return fmt.Errorf("ip %s: %w: %s", strings.Join(arguments, " "), err, out)
			}
		}
		return nil
	}
	return errors.New("no free network in 10.0.0.0/8")
}

var counter = func() func() uint32 {
	var mu sync.Mutex
	var n uint32
	return func() uint32 {
		mu.Lock()
		defer mu.Unlock()
		n++
		return n
	}
}()

// endShims ends what a killed engine left running: containerd, the shims of
// containers, which have the engine's folder in their arguments, and containers,
// which are children of theirs.
func endShims(dir string) {
	var shims []int
	children := map[int][]int{}
	folders, _ := filepath.Glob("/proc/[0-9]*")
	for _, folder := range folders {
		pid, _ := strconv.Atoi(filepath.Base(folder))
		stat, err := os.ReadFile(filepath.Join(folder, "stat"))
		if err != nil {
			continue
		}
		var parent int
		var state string
		if _, err := fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent); err == nil {
			children[parent] = append(children[parent], pid)
		}
		arguments, _ := os.ReadFile(filepath.Join(folder, "cmdline"))
		if pid != os.Getpid() && bytes.Contains(arguments, []byte(dir+"/")) {
			shims = append(shims, pid)
		}
	}
	for _, shim := range shims {
		for _, child := range children[shim] {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = syscall.Kill(shim, syscall.SIGKILL)
	}
}

// remove removes an engine's folder, with what runs for it and is mounted in it,
// and its bridge.
func remove(dir, bridge string) {
	endShims(dir)
	if mounts, err := os.ReadFile("/proc/self/mounts"); err == nil {
		lines := strings.Split(string(mounts), "\n")
		for i := len(lines) - 1; i >= 0; i-- {
			if fields := strings.Fields(lines[i]); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
				_ = syscall.Unmount(fields[1], syscall.MNT_DETACH)
			}
		}
	}
	_ = os.RemoveAll(dir)
	if bridge != "" {
		_ = exec.Command("ip", "link", "del", bridge).Run()
	}
}

// removeStale removes what killed test processes left: folders and bridges are
// named for the process that made them.
func removeStale() {
	folders, _ := filepath.Glob("/tmp/" + folderPrefix + "*")
	for _, dir := range folders {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), folderPrefix), "-")
		if !alive(owner) {
			remove(dir, "")
		}
	}
	interfaces, _ := net.Interfaces()
	for _, i := range interfaces {
		owner, ok := strings.CutPrefix(i.Name, bridgePrefix)
		if owner, _, _ = strings.Cut(owner, "n"); ok && !alive(owner) {
			_ = exec.Command("ip", "link", "del", i.Name).Run()
		}
	}
}

func alive(pid string) bool {
	n, err := strconv.Atoi(pid)
	return err != nil || syscall.Kill(n, 0) == nil || n == os.Getpid()
}
