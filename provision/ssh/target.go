package ssh

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kevinburke/ssh_config"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Target is a machine, and how it is reached.
type Target struct {
	// Name is the node's name, for messages.
	Name string
	cluster.Connection
}

// Policy says what happens to host keys that are not known.
type Policy string

const (
	// Strict refuses hosts whose key is not known. It is the default.
	Strict Policy = "strict"
	// AcceptNew takes and stores the key of a host that has none, and refuses one that
	// has changed.
	AcceptNew Policy = "accept-new"
	// Off takes any key. Whoever is between mi-lb and the host can read and change
	// everything.
	Off Policy = "off"
)

// ParsePolicy reads a policy.
func ParsePolicy(s string) (Policy, error) {
	switch p := Policy(s); p {
	case Strict, AcceptNew, Off:
		return p, nil
	}
	return "", fmt.Errorf("%q is none of strict, accept-new, off", s)
}

// Options are what all connections share.
type Options struct {
	// KnownHosts is the cluster's file of host keys. It need not exist.
	KnownHosts string
	// HostKeys is the policy for unknown keys; empty is [Strict].
	HostKeys Policy
	// ConfigFile is the ssh_config; empty is ~/.ssh/config where there is one, "none"
	// is none.
	ConfigFile string
	// AgentSocket is the agent's socket; empty is $SSH_AUTH_SOCK, "none" is none.
	AgentSocket string
	// Keys are tried where neither the inventory nor ssh_config names any; nil are
	// those of OpenSSH in ~/.ssh.
	Keys []string
	// Passphrase is asked for an encrypted key; nil refuses such keys.
	Passphrase func(keyFile string) (redact.Text, error)
	// DialTimeout bounds the way from dialling to being logged in; 0 is 20 seconds.
	DialTimeout time.Duration
	// Log gets one debug line per command; nil is no log.
	Log *slog.Logger
	// Mask hides secrets in logs and errors; nil hides only the passwords of targets.
	Mask *redact.Mask
}

// endpoint is a machine with all that ssh_config says about it.
type endpoint struct {
	name           string // for messages
	host           string
	port           int
	user           string
	password       redact.Text
	keys           []string
	identitiesOnly bool
	agentSocket    string
	hostKeys       []string
	jumps          []string
	config         *sshConfig
}

func (e endpoint) address() string { return net.JoinHostPort(e.host, strconv.Itoa(e.port)) }

// key tells connections apart that can be shared.
func (e endpoint) key() string { return e.user + "@" + e.address() }

// String is user@host:port.
func (e endpoint) String() string { return e.key() }

// sshConfig is an ssh_config; nil says nothing.
type sshConfig struct {
	file   string
	config *ssh_config.Config
}

// readConfig reads an ssh_config. The user's own need not exist.
func readConfig(file string) (*sshConfig, error) {
	if file == "none" || file == "/dev/null" {
		return nil, nil
	}
	optional := file == ""
	if optional {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil, nil
		}
		file = filepath.Join(home, ".ssh", "config")
	}
	f, err := os.Open(expandHome(file))
	if os.IsNotExist(err) && optional {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read the ssh_config: %w", err)
	}
	defer f.Close()
	config, err := ssh_config.Decode(f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w; name another file, or none, with -F in ansible_ssh_common_args", file, err)
	}
	return &sshConfig{file: file, config: config}, nil
}

func (c *sshConfig) get(alias, key string) (string, error) {
	all, err := c.all(alias, key)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0], nil
}

func (c *sshConfig) all(alias, key string) ([]string, error) {
	if c == nil {
		return nil, nil
	}
	all, err := c.config.GetAll(alias, key)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s in %s: %w", key, alias, c.file, err)
	}
	return all, nil
}

// resolve completes an endpoint whose host may be an alias of ssh_config.
func (c *sshConfig) resolve(e endpoint) (endpoint, error) {
	alias := e.host
	e.config = c
	get := func(key string) (string, error) { return c.get(alias, key) }
	if name, err := get("HostName"); err != nil {
		return e, err
	} else if name != "" {
		e.host = strings.NewReplacer("%h", alias, "%%", "%").Replace(name)
	}
	if e.user == "" {
		user, err := get("User")
		if err != nil {
			return e, err
		}
		if e.user = user; user == "" {
			e.user = os.Getenv("USER")
		}
		if e.user == "" {
			e.user = "root"
		}
	}
	if e.port == 0 {
		e.port = 22
		port, err := get("Port")
		if err != nil {
			return e, err
		}
		if port != "" {
			if e.port, err = strconv.Atoi(port); err != nil || e.port < 1 || e.port > 65535 {
				return e, fmt.Errorf("the Port %q of %s in %s is none", port, alias, c.file)
			}
		}
	}
	if len(e.keys) == 0 {
		keys, err := c.all(alias, "IdentityFile")
		if err != nil {
			return e, err
		}
		replace := strings.NewReplacer("%h", e.host, "%r", e.user, "%d", expandHome("~"), "%%", "%")
		for _, key := range keys {
			if key != "~/.ssh/identity" { // a default of the library
				e.keys = append(e.keys, replace.Replace(key))
			}
		}
	}
	only, err := get("IdentitiesOnly")
	if err != nil {
		return e, err
	}
	e.identitiesOnly = strings.EqualFold(only, "yes")
	if e.agentSocket, err = get("IdentityAgent"); err != nil {
		return e, err
	}
	if len(e.jumps) == 0 {
		jumps, err := get("ProxyJump")
		if err != nil {
			return e, err
		}
		if jumps != "" && !strings.EqualFold(jumps, "none") {
			e.jumps = strings.Split(jumps, ",")
		}
	}
	return e, nil
}

// parseJump reads [user@]host[:port].
func parseJump(jump string) (endpoint, error) {
	e := endpoint{}
	rest := strings.TrimPrefix(strings.TrimSpace(jump), "ssh://")
	if user, host, ok := strings.Cut(rest, "@"); ok {
		e.user, rest = user, host
	}
	e.host = strings.Trim(rest, "[]")
	if host, port, err := net.SplitHostPort(rest); err == nil {
		if e.port, err = strconv.Atoi(port); err != nil || e.port < 1 || e.port > 65535 {
			return e, fmt.Errorf("jump host %q: %q is no port", jump, port)
		}
		e.host = host
	}
	if e.host == "" {
		return e, fmt.Errorf("jump host %q: it names no host", jump)
	}
	e.name = e.host
	return e, nil
}

func expandHome(path string) string {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, strings.TrimPrefix(path, "~"))
}
