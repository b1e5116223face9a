package inventory

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
)

const vaultHeader = "$ANSIBLE_VAULT;"

var (
	errNoVaultPassword    = errors.New("it is encrypted with Ansible Vault, and no password was given; name its file with --vault-password-file")
	errWrongVaultPassword = errors.New("none of the vault passwords given decrypts it")
	errVaultFormat        = errors.New("it begins like a file of Ansible Vault, and is none: the data is damaged")
)

// Keyring holds the passwords of Ansible Vault. The zero value holds none.
type Keyring struct {
	passwords []string

	mu    sync.Mutex
	known map[string]string // plain text by ciphertext: deriving a key takes milliseconds
}

// NewKeyring is a keyring with these passwords, which are tried in order.
func NewKeyring(passwords ...string) *Keyring { return &Keyring{passwords: passwords} }

// String hides the passwords.
func (k *Keyring) String() string { return fmt.Sprintf("keyring of %d", len(k.passwords)) }

// GoString hides the passwords.
func (k *Keyring) GoString() string { return k.String() }

// ReadKeyring reads one password from each file, without the white space around
// it; a file that is executable is run, and what it prints is the password.
func ReadKeyring(ctx context.Context, files ...string) (*Keyring, error) {
	keyring := &Keyring{}
	for _, file := range files {
		status, err := os.Stat(file)
		if err != nil {
			return nil, fmt.Errorf("read the vault password: %w", err)
		}
		var text []byte
		if status.Mode().IsRegular() && status.Mode()&0o111 != 0 {
			path := file
			if !strings.Contains(path, "/") {
				path = "./" + path
			}
			text, err = exec.CommandContext(ctx, path).Output()
			if err != nil {
				return nil, fmt.Errorf("run %s for the vault password: %w; if it is no program, take its executable bit away", file, err)
			}
		} else if text, err = os.ReadFile(file); err != nil {
			return nil, fmt.Errorf("read the vault password: %w", err)
		}
		password := string(bytes.TrimSpace(text))
		if password == "" {
			return nil, fmt.Errorf("the vault password in %s is empty", file)
		}
		keyring.passwords = append(keyring.passwords, password)
	}
	return keyring, nil
}

// isVault says whether data is a file of Ansible Vault.
func isVault(data []byte) bool { return bytes.HasPrefix(data, []byte(vaultHeader)) }

// decrypt is the plain text of an envelope ("$ANSIBLE_VAULT;1.1;AES256", then hex).
func (k *Keyring) decrypt(envelope string) (string, error) {
	if k == nil || len(k.passwords) == 0 {
		return "", errNoVaultPassword
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if plain, ok := k.known[envelope]; ok {
		return plain, nil
	}
	salt, sum, ciphertext, err := openEnvelope(envelope)
	if err != nil {
		return "", err
	}
	for _, password := range k.passwords {
		plain, ok, err := decryptVault(password, salt, sum, ciphertext)
		if err != nil {
			return "", err
		}
		if ok {
			if k.known == nil {
				k.known = map[string]string{}
			}
			k.known[envelope] = plain
			return plain, nil
		}
	}
	return "", errWrongVaultPassword
}

// openEnvelope takes the envelope apart: a header line, then hex of three lines of hex.
func openEnvelope(envelope string) (salt, sum, ciphertext []byte, err error) {
	lines := strings.Fields(envelope)
	if len(lines) < 2 {
		return nil, nil, nil, errVaultFormat
	}
	header := strings.Split(lines[0], ";")
	if len(header) < 3 || header[0] != "$ANSIBLE_VAULT" || header[1] != "1.1" && header[1] != "1.2" {
		return nil, nil, nil, errVaultFormat
	}
	if header[2] != "AES256" {
		return nil, nil, nil, fmt.Errorf("it is encrypted with %q, and only AES256 is known", header[2])
	}
	inner, err := hex.DecodeString(strings.Join(lines[1:], ""))
	if err != nil {
		return nil, nil, nil, errVaultFormat
	}
	parts := strings.Split(string(inner), "\n")
	if len(parts) != 3 {
		return nil, nil, nil, errVaultFormat
	}
	var decoded [3][]byte
	for i, part := range parts {
		if decoded[i], err = hex.DecodeString(part); err != nil {
			return nil, nil, nil, errVaultFormat
		}
	}
	return decoded[0], decoded[1], decoded[2], nil
}

// decryptVault follows Ansible's format: PBKDF2 gives two keys and a counter,
// an HMAC guards the ciphertext, PKCS#7 pads it. ok is false for a wrong password.
func decryptVault(password string, salt, sum, ciphertext []byte) (plain string, ok bool, err error) {
	const rounds, keyLength = 10000, 32
	keys, err := pbkdf2.Key(sha256.New, password, salt, rounds, 2*keyLength+aes.BlockSize)
	if err != nil {
		return "", false, fmt.Errorf("derive the vault key: %w", err)
	}
	mac := hmac.New(sha256.New, keys[keyLength:2*keyLength])
	mac.Write(ciphertext)
	if !hmac.Equal(mac.Sum(nil), sum) {
		return "", false, nil
	}
	block, err := aes.NewCipher(keys[:keyLength])
	if err != nil {
		return "", false, fmt.Errorf("use the vault key: %w", err)
	}
	padded := make([]byte, len(ciphertext))
	cipher.NewCTR(block, keys[2*keyLength:]).XORKeyStream(padded, ciphertext)
	if len(padded) == 0 || int(padded[len(padded)-1]) > len(padded) {
		return "", false, errVaultFormat
	}
	return string(padded[:len(padded)-int(padded[len(padded)-1])]), true, nil
}
