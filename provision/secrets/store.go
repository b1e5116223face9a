package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/provision/redact"
)

// Lock says how a bundle is encrypted: by a passphrase, by an age identity, or,
// for the zero value, not at all.
type Lock struct {
	passphrase redact.Text
	identities []age.Identity
	recipients []age.Recipient
	// workFactor of scrypt, for tests; 0 is age's own.
	workFactor int
}

// Passphrase locks with a passphrase.
func Passphrase(passphrase redact.Text) Lock { return Lock{passphrase: passphrase} }

// IdentityFile locks with the identity in a file, as age-keygen writes it.
func IdentityFile(path string) (Lock, error) {
	file, err := os.Open(path)
	if err != nil {
		return Lock{}, fmt.Errorf("read the age identity: %w", err)
	}
	defer file.Close()
	identities, err := age.ParseIdentities(file)
	if err != nil {
		return Lock{}, fmt.Errorf("read the age identity %s: it is no file that age-keygen writes", path)
	}
	lock := Lock{identities: identities}
	for _, identity := range identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			lock.recipients = append(lock.recipients, i.Recipient())
		case *age.HybridIdentity:
			lock.recipients = append(lock.recipients, i.Recipient())
		}
	}
	return lock, nil
}

func (l Lock) isOpen() bool { return l.passphrase.IsEmpty() && len(l.identities) == 0 }

var (
	// ErrLocked is a bundle that is encrypted, and no way to decrypt it was given.
	ErrLocked = errors.New("the secrets are encrypted; give the passphrase or the age identity")
	// ErrWrongKey is a bundle that the passphrase or identity does not open.
	ErrWrongKey = errors.New("the passphrase or age identity does not open the secrets")
	// ErrNotEncrypted is a bundle that was to be encrypted, and is not.
	ErrNotEncrypted = errors.New("a passphrase or age identity was given, and the secrets are not encrypted; somebody may have put them there")
	// ErrReadable is a bundle that others than its owner can read.
	ErrReadable = errors.New("others than the owner can read the secrets; make the file private with chmod 600, and consider the secrets known")
)

// format is the file. Its version changes when a program that knows the last one
// would misread it.
type format struct {
	Version int               `json:"version"`
	Secrets map[string]string `json:"secrets"`
}

const formatVersion = 1

// ageHeaders begin what age encrypts.
var ageHeaders = []string{"age-encryption.org/", armor.Header}

// Load reads a bundle. A file that does not exist is fs.ErrNotExist, which is
// different from an empty one.
func Load(path string, lock Lock) (*Bundle, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the secrets: %w", err)
	}
	encrypted := false
	for _, header := range ageHeaders {
		encrypted = encrypted || bytes.HasPrefix(data, []byte(header))
	}
	switch {
	case encrypted:
		if data, err = lock.decrypt(data); err != nil {
			return nil, fmt.Errorf("read the secrets in %s: %w", path, err)
		}
	case !lock.isOpen():
		return nil, fmt.Errorf("read the secrets in %s: %w", path, ErrNotEncrypted)
	default:
		status, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("read the secrets: %w", err)
		}
		if status.Mode().Perm()&0o077 != 0 {
			return nil, fmt.Errorf("read the secrets in %s: %w", path, ErrReadable)
		}
	}
	var f format
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&f); err != nil {
		// The decoder's own message could repeat a part of a secret.
		return nil, fmt.Errorf("read the secrets in %s: the file is damaged near byte %d", path, decoder.InputOffset())
	}
	if f.Version != formatVersion {
		return nil, fmt.Errorf("read the secrets in %s: they have version %d, and this mi-lb knows version %d", path, f.Version, formatVersion)
	}
	b := New()
	for name, value := range f.Secrets {
		b.values[name] = redact.New(value)
	}
	return b, nil
}

// Save writes a bundle, replacing the file in one step: it is the old one or the
// new one, whatever happens. Only its owner can read it. An encrypted file is
// never replaced by one that is not.
func (b *Bundle) Save(path string, lock Lock) error {
	if lock.isOpen() {
		old, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("store the secrets: %w", err)
		}
		for _, header := range ageHeaders {
			if bytes.HasPrefix(old, []byte(header)) {
				return fmt.Errorf("store the secrets in %s: %w", path, ErrLocked)
			}
		}
	}
	f := format{Version: formatVersion, Secrets: make(map[string]string, len(b.values))}
	for name, value := range b.values {
		f.Secrets[name] = value.Reveal()
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("store the secrets: %w", err)
	}
	if !lock.isOpen() {
		if data, err = lock.encrypt(data); err != nil {
			return fmt.Errorf("encrypt the secrets: %w", err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("store the secrets: %w", err)
	}
	if err := renameio.WriteFile(path, append(data, '\n'), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("store the secrets: %w", err)
	}
	return nil
}

// Encrypts says whether there is anything to encrypt with.
func (l Lock) Encrypts() bool { return !l.isOpen() }

// Encrypt is a writer whose input arrives in w encrypted, in age's format, once it is
// closed; as it is where the lock is the zero value.
func (l Lock) Encrypt(w io.Writer) (io.WriteCloser, error) {
	if l.isOpen() {
		return plain{w}, nil
	}
	recipients := l.recipients
	if !l.passphrase.IsEmpty() {
		recipient, err := age.NewScryptRecipient(l.passphrase.Reveal())
		if err != nil {
			return nil, err
		}
		if l.workFactor > 0 {
			recipient.SetWorkFactor(l.workFactor)
		}
		recipients = []age.Recipient{recipient}
	}
	return age.Encrypt(w, recipients...)
}

// plain leaves what it writes as it is.
type plain struct{ io.Writer }

// Close implements [io.Closer].
func (plain) Close() error { return nil }

func (l Lock) encrypt(data []byte) ([]byte, error) {
	var out bytes.Buffer
	armored := armor.NewWriter(&out)
	w, err := l.Encrypt(armored)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	if err := armored.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func (l Lock) decrypt(data []byte) ([]byte, error) {
	if l.isOpen() {
		return nil, ErrLocked
	}
	identities := l.identities
	if !l.passphrase.IsEmpty() {
		identity, err := age.NewScryptIdentity(l.passphrase.Reveal())
		if err != nil {
			return nil, err
		}
		identities = []age.Identity{identity}
	}
	var in io.Reader = bytes.NewReader(data)
	if strings.HasPrefix(string(data), armor.Header) {
		in = armor.NewReader(in)
	}
	r, err := age.Decrypt(in, identities...)
	var wrong *age.NoIdentityMatchError
	switch {
	case errors.As(err, &wrong):
		return nil, ErrWrongKey
	case err != nil:
		return nil, fmt.Errorf("the file is damaged: %w", err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("the file is damaged: %w", err)
	}
	return plain, nil
}
