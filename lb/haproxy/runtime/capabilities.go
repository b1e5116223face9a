package runtime

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Capabilities are what the running HAProxy can do at run time. They hold for one
// worker: another may be another version.
type Capabilities struct {
	PID     int
	Version string
	// AddServer: servers can be added.
	AddServer bool
	// DelServer: they can be deleted without the risk of a crash.
	DelServer bool
	// WaitRemovable: `wait … srv-removable` says when a server can be deleted.
	WaitRemovable bool
	// ServerCookie: an added server can have a cookie of its own.
	ServerCookie bool
	// AddBackend: backends can be added, published and deleted.
	AddBackend bool
	// SyncReload: the master answers a reload when it is done.
	SyncReload bool
}

// Capabilities asks the worker once; a worker with another pid is asked again.
func (c *Client) Capabilities(ctx context.Context) (Capabilities, error) {
	info, err := c.Info(ctx)
	if err != nil {
		return Capabilities{}, err
	}
	c.mu.Lock()
	known := c.probed
	c.mu.Unlock()
	if known != nil && known.PID == info.PID {
		return *known, nil
	}
	help, err := c.Read(ctx, "help")
	if err != nil {
		return Capabilities{}, err
	}
	caps, err := Probe(info, help)
	if err != nil {
		return Capabilities{}, fmt.Errorf("capabilities of %s: %w", c.socket, err)
	}
	c.mu.Lock()
	c.probed = &caps
	c.mu.Unlock()
	return caps, nil
}

// Probe derives capabilities from what a worker says of itself and its answer to
// `help`. The presence of a command is read from the answer, since distributions
// backport; the version is asked only for what does not show there.
func Probe(info Info, help string) (Capabilities, error) {
	release, err := parseRelease(info.Version)
	if err != nil {
		return Capabilities{}, err
	}
	commands := map[string]string{}
	for line := range strings.Lines(help) {
		line, description, _ := strings.Cut(strings.TrimSpace(line), ":")
		words := strings.Fields(line)
		if len(words) > 0 {
			commands[words[0]] += line + description + "\n"
		}
		if len(words) > 1 {
			commands[words[0]+" "+words[1]] = line + description
		}
	}
	has := func(command string) bool { _, ok := commands[command]; return ok }
	if !has("show version") && !has("set server") {
		return Capabilities{}, fmt.Errorf("no list of commands in the answer to help: %.100q", help)
	}
	return Capabilities{
		PID: info.PID, Version: info.Version,
		AddServer:     has("add server"),
		DelServer:     has("del server") && release.deletesSafely(),
		WaitRemovable: has("wait") && release.atLeast(3, 0, 0),
		ServerCookie:  has("add server") && release.atLeast(3, 0, 0),
		AddBackend:    has("add backend"),
		SyncReload:    release.atLeast(2, 7, 0),
	}, nil
}

type release struct{ major, minor, patch int }

func (r release) atLeast(major, minor, patch int) bool {
	switch {
	case r.major != major:
		return r.major > major
	case r.minor != minor:
		return r.minor > minor
	}
	return r.patch >= patch
}

// deletesSafely is whether `del server` has the fixes of haproxy#2378 and the two
// that followed it in spring 2024 (95c4d2482, 1b8c5abee, 7dae3ceaa upstream). A
// distribution that took them into an older version is not told apart from one
// that did not; then servers are left in maintenance, which costs memory only.
func (r release) deletesSafely() bool {
	switch {
	case r.atLeast(3, 0, 0):
		return true
	case r.atLeast(2, 9, 0):
		return r.patch >= 8
	case r.atLeast(2, 8, 0):
		return r.patch >= 10
	case r.atLeast(2, 7, 0):
		return false // its last release is older than the fixes
	case r.atLeast(2, 6, 0):
		return r.patch >= 18
	}
	return false
}

// parseRelease reads "2.6.12-1+deb12u4", "3.1-dev6-2f6f36", "3.0.5".
func parseRelease(version string) (release, error) {
	digits := version
	if i := strings.IndexFunc(version, func(c rune) bool { return c != '.' && (c < '0' || c > '9') }); i >= 0 {
		digits = version[:i]
	}
	parts := strings.Split(digits, ".")
	numbers := [3]int{}
	if len(parts) < 2 || len(parts) > 3 {
		return release{}, fmt.Errorf("version %.50q is none of HAProxy's", version)
	}
	for i, part := range parts {
		n, err := strconv.Atoi(part)
		if err != nil {
			return release{}, fmt.Errorf("version %.50q is none of HAProxy's: %w", version, err)
		}
		numbers[i] = n
	}
	return release{numbers[0], numbers[1], numbers[2]}, nil
}
