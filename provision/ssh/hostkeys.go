package ssh

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// UnknownHostKeyError is a host whose key nobody has confirmed.
type UnknownHostKeyError struct {
	Host        string // host:port
	Fingerprint string
	KnownHosts  string
}

// Error says what to do.
func (e *UnknownHostKeyError) Error() string {
	return fmt.Sprintf("the key of host %s is not known (%s); compare it, and take it with mi-lb bootstrap keyscan, which writes %s, or set host_key in the inventory", e.Host, e.Fingerprint, e.KnownHosts)
}

// ChangedHostKeyError is a host that has another key than the one that is known:
// the machine was installed anew, or somebody else answers.
type ChangedHostKeyError struct {
	Host        string // host:port
	Fingerprint string
	// Known are the fingerprints that were expected, with file and line.
	Known []string
}

// Error says what to do.
func (e *ChangedHostKeyError) Error() string {
	return fmt.Sprintf("the key of host %s has changed: it is %s, and known is %s; somebody may be in between. If the machine was installed anew, remove the known key and run mi-lb bootstrap keyscan", e.Host, e.Fingerprint, strings.Join(e.Known, ", "))
}

// hostKeys checks the keys of hosts.
type hostKeys struct {
	file   string
	policy Policy
	warn   func(host, fingerprint string)

	mu sync.Mutex // of the file
}

// preferred are the algorithms of host keys, best first, where none is known.
var preferred = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// database reads the file; nil where there is none.
func (h *hostKeys) database() (*knownhosts.HostKeyDB, error) {
	if h.file == "" {
		return nil, nil
	}
	if _, err := os.Stat(h.file); os.IsNotExist(err) {
		return nil, nil
	}
	db, err := knownhosts.NewDB(h.file)
	if err != nil {
		return nil, fmt.Errorf("read the known host keys: %w", err)
	}
	return db, nil
}

// anywhere stands for the remote address, which says nothing behind a jump host:
// hosts are known by name.
var anywhere = &net.TCPAddr{IP: net.IPv4zero}

// check is how the key of an endpoint is checked, and which algorithms to ask for:
// those of the keys that are known, or a host would show another one.
func (h *hostKeys) check(e endpoint) (ssh.HostKeyCallback, []string, error) {
	if len(e.hostKeys) > 0 {
		return pinned(e)
	}
	if h.policy == Off {
		return func(_ string, _ net.Addr, key ssh.PublicKey) error {
			h.warn(e.address(), ssh.FingerprintSHA256(key))
			return nil
		}, preferred, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	db, err := h.database()
	if err != nil {
		return nil, nil, err
	}
	algorithms := preferred
	if db != nil {
		if known := db.HostKeyAlgorithms(e.address()); len(known) > 0 {
			algorithms = known
		}
	}
	return func(_ string, _ net.Addr, key ssh.PublicKey) error { return h.verify(e.address(), key) }, algorithms, nil
}

// verify looks a key up, and stores it if the policy says so.
func (h *hostKeys) verify(address string, key ssh.PublicKey) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	db, err := h.database()
	if err != nil {
		return err
	}
	err = &xknownhosts.KeyError{}
	if db != nil {
		err = db.HostKeyCallback()(address, anywhere, key)
	}
	var wrong *xknownhosts.KeyError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &wrong):
		return fmt.Errorf("check the key of host %s: %w", address, err)
	case len(wrong.Want) > 0:
		changed := &ChangedHostKeyError{Host: address, Fingerprint: ssh.FingerprintSHA256(key)}
		for _, known := range wrong.Want {
			changed.Known = append(changed.Known, fmt.Sprintf("%s (%s:%d)", ssh.FingerprintSHA256(known.Key), known.Filename, known.Line))
		}
		return changed
	case h.policy == AcceptNew:
		return appendKnown(h.file, []string{knownhosts.Line([]string{address}, key)})
	}
	return &UnknownHostKeyError{Host: address, Fingerprint: ssh.FingerprintSHA256(key), KnownHosts: h.file}
}

// pinned accepts the keys that the inventory names, and no others.
func pinned(e endpoint) (ssh.HostKeyCallback, []string, error) {
	var keys []ssh.PublicKey
	var algorithms []string
	for _, line := range e.hostKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, nil, fmt.Errorf("host_key of %s is no public key such as \"ssh-ed25519 AAAA…\"", e.name)
		}
		keys = append(keys, key)
		if key.Type() == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
		} else {
			algorithms = append(algorithms, key.Type())
		}
	}
	return func(_ string, _ net.Addr, key ssh.PublicKey) error {
		if slices.ContainsFunc(keys, func(k ssh.PublicKey) bool { return sameKey(k, key) }) {
			return nil
		}
		changed := &ChangedHostKeyError{Host: e.address(), Fingerprint: ssh.FingerprintSHA256(key)}
		for _, known := range keys {
			changed.Known = append(changed.Known, ssh.FingerprintSHA256(known)+" (host_key)")
		}
		return changed
	}, algorithms, nil
}

// appendKnown adds lines to a known_hosts file, and makes it if there is none.
func appendKnown(file string, lines []string) error {
	if file == "" {
		return errors.New("store a host key: no known_hosts file was named")
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("store a host key: %w", err)
	}
	f, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("store a host key: %w", err)
	}
	_, err = f.WriteString(strings.Join(lines, "\n") + "\n")
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("store a host key: %w", err)
	}
	return nil
}
