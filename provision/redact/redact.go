// Package redact keeps secrets out of print.
//
// In come secrets, as [Text], and whatever is about to be logged. Out goes the
// same without them. The package stores nothing and generates nothing.
package redact

import (
	"crypto/subtle"
	"encoding/json"
	"log/slog"
	"sort"
	"strings"
	"sync"
)

// Hidden is what is shown instead of a secret.
const Hidden = "(hidden)"

// Text is a secret. Printing, logging or encoding it shows [Hidden], or nothing
// if it is empty; only [Text.Reveal] gives it away.
type Text struct {
	// A pointer, because fmt prints what unexported fields hold, but of nested
	// pointers only the address.
	secret *string
}

// New is a secret of that text.
func New(secret string) Text {
	if secret == "" {
		return Text{}
	}
	return Text{&secret}
}

// Reveal is the secret itself.
func (t Text) Reveal() string {
	if t.secret == nil {
		return ""
	}
	return *t.secret
}

// Equal says whether two secrets are the same.
func (t Text) Equal(o Text) bool {
	return subtle.ConstantTimeCompare([]byte(t.Reveal()), []byte(o.Reveal())) == 1
}

// IsEmpty says whether there is none.
func (t Text) IsEmpty() bool { return t.secret == nil }

// String hides the secret.
func (t Text) String() string {
	if t.secret == nil {
		return ""
	}
	return Hidden
}

// GoString hides the secret.
func (t Text) GoString() string { return t.String() }

// LogValue hides the secret.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalJSON hides the secret. Whoever stores secrets reveals them on purpose.
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

// MarshalText hides the secret.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalYAML hides the secret.
func (t Text) MarshalYAML() (any, error) { return t.String(), nil }

// shortest secret that a [Mask] replaces: shorter ones are parts of other words,
// and replacing them would say what they are.
const shortest = 4

// Mask replaces the secrets it knows. It is safe for concurrent use; the zero
// value knows none.
type Mask struct {
	mu      sync.RWMutex
	secrets []string // longest first
}

// Add makes secrets known. Each line of one is a secret of its own, as programs
// print them line by line.
func (m *Mask) Add(secrets ...Text) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range secrets {
		for _, s := range append(strings.Split(t.Reveal(), "\n"), t.Reveal()) {
			if s = strings.TrimSpace(s); len(s) >= shortest {
				m.secrets = append(m.secrets, s)
			}
		}
	}
	sort.Slice(m.secrets, func(i, j int) bool { return len(m.secrets[i]) > len(m.secrets[j]) })
}

// Mask is s without the secrets.
func (m *Mask) Mask(s string) string {
	if m == nil {
		return s
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	for _, secret := range m.secrets {
		s = strings.ReplaceAll(s, secret, Hidden)
	}
	return s
}
