package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
)

// ScannedKey is a key that a host shows.
type ScannedKey struct {
	Name        string `json:"name"` // of the node
	Address     string `json:"address"`
	Type        string `json:"type"`
	Fingerprint string `json:"fingerprint"`
	// Line is the key as known_hosts has it.
	Line string `json:"line"`
	// Status says whether the cluster's known_hosts has it.
	Status KeyStatus `json:"status"`
}

// KeyStatus compares a scanned key with the known ones.
type KeyStatus string

const (
	// KeyKnown is known already.
	KeyKnown KeyStatus = "known"
	// KeyNew is not.
	KeyNew KeyStatus = "new"
	// KeyChanged differs from the one of its type that is known.
	KeyChanged KeyStatus = "changed"
)

// errScanned ends a handshake whose purpose is served.
var errScanned = errors.New("the key has been seen")

// Keyscan asks a target for its host keys without logging in to it. Jump hosts on
// the way are logged in to, and checked.
func (d *Dialer) Keyscan(ctx context.Context, t Target) ([]ScannedKey, error) {
	if t.Local {
		return nil, nil
	}
	e, err := d.endpoint(t)
	if err != nil {
		return nil, fmt.Errorf("scan the keys of %s: %w", t.Name, err)
	}
	via, err := d.via(ctx, e, 0)
	if err != nil {
		return nil, fmt.Errorf("scan the keys of %s: %w", t.Name, err)
	}
	var scanned []ScannedKey
	for _, algorithms := range [][]string{{ssh.KeyAlgoED25519}, {ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521}, {ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}} {
		var key ssh.PublicKey
		_, err := d.handshake(ctx, e, via, &ssh.ClientConfig{
			User: e.user, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-mi-lb",
			HostKeyCallback: func(_ string, _ net.Addr, shown ssh.PublicKey) error {
				key = shown
				return errScanned
			},
		})
		switch {
		case key != nil:
		case err != nil && strings.Contains(err.Error(), "no common algorithm"):
			continue // it has no key of this type
		default:
			return nil, fmt.Errorf("scan the keys of %s: %w", t.Name, err)
		}
		status, err := d.hostKeys.status(e.address(), key)
		if err != nil {
			return nil, fmt.Errorf("scan the keys of %s: %w", t.Name, err)
		}
		scanned = append(scanned, ScannedKey{
			Name: t.Name, Address: e.address(), Type: key.Type(), Fingerprint: ssh.FingerprintSHA256(key),
			Line: knownhosts.Line([]string{e.address()}, key), Status: status,
		})
	}
	return scanned, nil
}

// status compares a key with those of its type that are known.
func (h *hostKeys) status(address string, key ssh.PublicKey) (KeyStatus, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	db, err := h.database()
	if err != nil || db == nil {
		return KeyNew, err
	}
	status := KeyNew
	for _, known := range db.HostKeys(address) {
		if known.Type() != key.Type() {
			continue
		}
		if sameKey(known.PublicKey, key) {
			return KeyKnown, nil
		}
		status = KeyChanged
	}
	return status, nil
}

// Trust stores the new ones of scanned keys in the cluster's known_hosts and
// returns how many. Changed ones are not stored: somebody has to look at them.
func (d *Dialer) Trust(keys []ScannedKey) (int, error) {
	var lines []string
	for _, k := range keys {
		if k.Status == KeyNew {
			lines = append(lines, k.Line)
		}
	}
	if len(lines) == 0 {
		return 0, nil
	}
	d.hostKeys.mu.Lock()
	defer d.hostKeys.mu.Unlock()
	return len(lines), appendKnown(d.options.KnownHosts, lines)
}
