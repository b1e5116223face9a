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

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/mi-lb/mi-lb/provision/redact"
)

// LoginError is a host that is reached and does not let us in.
type LoginError struct {
	// Login is user@host:port.
	Login string
	// Tried says with what.
	Tried []string
	cause error
}

// Error says with what it was tried.
func (e *LoginError) Error() string {
	tried := "nothing: there is no key, no agent and no password"
	if len(e.Tried) > 0 {
		tried = strings.Join(e.Tried, ", ")
	}
	message := fmt.Sprintf("log in as %s: refused; tried %s", e.Login, tried)
	if strings.Contains(e.cause.Error(), "Too many authentication failures") {
		message += "; the host allows no more tries: name the key with ansible_ssh_private_key_file"
	}
	return message
}

// Unwrap is what the SSH library says.
func (e *LoginError) Unwrap() error { return e.cause }

// keyring finds keys, and asks for a passphrase once.
type keyring struct {
	options Options

	mu     sync.Mutex
	files  map[string]ssh.Signer
	agents map[string]agent.ExtendedAgent
	open   []net.Conn
}

// methods are the ways to log in to an endpoint, and what to call them.
func (k *keyring) methods(e endpoint) (methods []ssh.AuthMethod, tried []string, err error) {
	var signers []ssh.Signer
	named := e.keys
	for _, file := range named {
		signer, err := k.file(file)
		if err != nil {
			return nil, nil, err
		}
		if signer != nil {
			signers = append(signers, signer)
			tried = append(tried, "key "+file)
		}
	}
	if !e.identitiesOnly || len(named) == 0 {
		held, socket, err := k.agent(e.agentSocket)
		if err != nil {
			return nil, nil, err
		}
		for _, signer := range held {
			if !slices.ContainsFunc(signers, func(s ssh.Signer) bool { return sameKey(s.PublicKey(), signer.PublicKey()) }) {
				signers = append(signers, signer)
			}
		}
		if len(held) > 0 {
			tried = append(tried, fmt.Sprintf("%d keys of the agent at %s", len(held), socket))
		}
	}
	if len(named) == 0 {
		for _, file := range k.defaults() {
			if _, err := os.Stat(expandHome(file)); err != nil {
				continue
			}
			signer, err := k.file(file)
			var locked *ssh.PassphraseMissingError
			if errors.As(err, &locked) {
				continue // nobody asked for this one
			} else if err != nil {
				return nil, nil, err
			}
			if signer != nil && !slices.ContainsFunc(signers, func(s ssh.Signer) bool { return sameKey(s.PublicKey(), signer.PublicKey()) }) {
				signers = append(signers, signer)
				tried = append(tried, "key "+file)
			}
		}
	}
	if len(signers) > 0 {
		methods = append(methods, ssh.PublicKeys(signers...))
	}
	if !e.password.IsEmpty() {
		methods = append(methods, ssh.Password(e.password.Reveal()), ssh.KeyboardInteractive(answer(e.password)))
		tried = append(tried, "the password")
	}
	return methods, tried, nil
}

func sameKey(a, b ssh.PublicKey) bool { return string(a.Marshal()) == string(b.Marshal()) }

// answer gives the password to the one question that hides its answer, as PAM asks it.
func answer(password redact.Text) ssh.KeyboardInteractiveChallenge {
	return func(_, _ string, questions []string, echos []bool) ([]string, error) {
		answers := make([]string, len(questions))
		for i := range questions {
			if echos[i] {
				return nil, errors.New("the host asks for more than a password")
			}
			answers[i] = password.Reveal()
		}
		return answers, nil
	}
}

func (k *keyring) defaults() []string {
	if k.options.Keys != nil {
		return k.options.Keys
	}
	var files []string
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"} {
		files = append(files, filepath.Join("~", ".ssh", name))
	}
	return files
}

// file reads a private key. An encrypted one that the agent holds is left to it:
// nil without an error.
func (k *keyring) file(file string) (ssh.Signer, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if signer, ok := k.files[file]; ok {
		return signer, nil
	}
	data, err := os.ReadFile(expandHome(file))
	if err != nil {
		return nil, fmt.Errorf("read the private key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(data)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked) && k.held(file, locked.PublicKey):
		return nil, nil
	case errors.As(err, &locked) && k.options.Passphrase != nil:
		passphrase, err := k.options.Passphrase(file)
		if err != nil {
			return nil, err
		}
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(data, []byte(passphrase.Reveal())); err != nil {
			return nil, fmt.Errorf("read the private key %s: the passphrase is wrong", file)
		}
	case errors.As(err, &locked):
		return nil, fmt.Errorf("read the private key %s: it has a passphrase; give the key to an agent with ssh-add: %w", file, err)
	case err != nil:
		return nil, fmt.Errorf("read the private key %s: %w", file, err)
	}
	if k.files == nil {
		k.files = map[string]ssh.Signer{}
	}
	k.files[file] = signer
	return signer, nil
}

// held says whether the agent has the key of a file. The lock is held.
func (k *keyring) held(file string, public ssh.PublicKey) bool {
	if public == nil {
		text, err := os.ReadFile(expandHome(file) + ".pub")
		if err != nil {
			return false
		}
		if public, _, _, _, err = ssh.ParseAuthorizedKey(text); err != nil {
			return false
		}
	}
	client, err := k.dialAgent(k.socket(""))
	if err != nil || client == nil {
		return false
	}
	keys, err := client.List()
	return err == nil && slices.ContainsFunc(keys, func(held *agent.Key) bool { return string(held.Blob) == string(public.Marshal()) })
}

func (k *keyring) socket(named string) string {
	switch {
	case named == "none" || k.options.AgentSocket == "none":
		return ""
	case named != "" && named != "SSH_AUTH_SOCK":
		return expandHome(os.ExpandEnv(named))
	case k.options.AgentSocket != "":
		return k.options.AgentSocket
	}
	return os.Getenv("SSH_AUTH_SOCK")
}

// agent is the keys that the agent holds. An agent that is named and does not
// answer is an error only if somebody named it on purpose.
func (k *keyring) agent(named string) ([]ssh.Signer, string, error) {
	socket := k.socket(named)
	if socket == "" {
		return nil, "", nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	client, err := k.dialAgent(socket)
	if err != nil {
		if named == "" && k.options.AgentSocket == "" {
			return nil, "", nil
		}
		return nil, "", fmt.Errorf("ask the SSH agent at %s: %w", socket, err)
	}
	signers, err := client.Signers()
	if err != nil {
		return nil, "", fmt.Errorf("ask the SSH agent at %s for its keys: %w", socket, err)
	}
	return signers, socket, nil
}

// dialAgent connects to an agent once. The lock is held.
func (k *keyring) dialAgent(socket string) (agent.ExtendedAgent, error) {
	if client, ok := k.agents[socket]; ok {
		return client, nil
	}
	if socket == "" {
		return nil, nil
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	if k.agents == nil {
		k.agents = map[string]agent.ExtendedAgent{}
	}
	k.open = append(k.open, conn)
	k.agents[socket] = agent.NewClient(conn)
	return k.agents[socket], nil
}

func (k *keyring) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, conn := range k.open {
		_ = conn.Close() // nothing is written that could be lost
	}
	k.open, k.agents = nil, nil
}
