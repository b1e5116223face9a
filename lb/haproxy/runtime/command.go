package runtime

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
)

// ErrInvalidCommand is wrapped by the error for text that would not be one
// command: that holds a line end, a ";" or "<<" outside of a word, or that is
// longer than a line may be.
var ErrInvalidCommand = errors.New("not a single command")

// check refuses what HAProxy would not read as exactly one command without a
// payload. It is the last gate, whoever built the command.
func check(cmd string) error {
	if strings.TrimSpace(cmd) == "" {
		return fmt.Errorf("%w: it is empty", ErrInvalidCommand)
	}
	if len(cmd) > maxLine-len("set severity-output number;show version;")-len(separator) {
		return fmt.Errorf("%w: %d bytes, %.60q…", ErrInvalidCommand, len(cmd), cmd)
	}
	for i := 0; i < len(cmd); i++ {
		switch c := cmd[i]; {
		case c < ' ' || c == 0x7f:
			return fmt.Errorf("%w: control character in %.200q", ErrInvalidCommand, cmd)
		case c == ';':
			return fmt.Errorf("%w: \";\" in %.200q", ErrInvalidCommand, cmd)
		case c == '<' && strings.HasPrefix(cmd[i:], "<<"):
			return fmt.Errorf("%w: payload in %.200q", ErrInvalidCommand, cmd)
		case c == '\\':
			// The next byte is escaped; it may be anything but a control character.
			i++
			if i == len(cmd) || cmd[i] < ' ' || cmd[i] == 0x7f {
				return fmt.Errorf("%w: nothing to escape in %.200q", ErrInvalidCommand, cmd)
			}
		}
	}
	return nil
}

// Command is the command made of the words. The first is HAProxy's, as it is; the
// others are arguments, of which each stays one, whatever it holds.
func Command(words string, args ...string) (string, error) {
	var cmd strings.Builder
	cmd.WriteString(words)
	for _, arg := range args {
		word, err := encode.Argument(arg)
		if err != nil {
			return "", fmt.Errorf("%w: %q with %q: %w", ErrInvalidCommand, words, arg, err)
		}
		cmd.WriteByte(' ')
		cmd.WriteString(word)
	}
	if err := check(cmd.String()); err != nil {
		return "", err
	}
	return cmd.String(), nil
}

// server is the command on a server. The name of neither backend nor server may
// be empty or hold a "/" or blank: HAProxy splits there.
func server(words, backend, name, rest string) (string, error) {
	for _, part := range []string{backend, name} {
		if part == "" || strings.ContainsAny(part, "/ \t") {
			return "", fmt.Errorf("%w: %q of %q/%q is no name", ErrInvalidCommand, part, backend, name)
		}
	}
	cmd, err := Command(words, backend+"/"+name)
	if err != nil {
		return "", err
	}
	if rest != "" {
		cmd += " " + rest
	}
	if err := check(cmd); err != nil {
		return "", err
	}
	return cmd, nil
}

// AddServer is `add server B/S ARGS`. The arguments are words of HAProxy's
// configuration that begin with the address, as whoever renders the backend's
// server lines writes them.
func AddServer(backend, name, args string) (string, error) {
	return server("add server", backend, name, strings.TrimSpace(args))
}

// DelServer is `del server B/S`.
func DelServer(backend, name string) (string, error) { return server("del server", backend, name, "") }

// ShutdownSessions is `shutdown sessions server B/S`.
func ShutdownSessions(backend, name string) (string, error) {
	return server("shutdown sessions server", backend, name, "")
}

// EnableHealth is `enable health B/S`: checks of a server that was added begin.
func EnableHealth(backend, name string) (string, error) {
	return server("enable health", backend, name, "")
}

// SetServerAddress is `set server B/S addr A port P`.
func SetServerAddress(backend, name string, address netip.AddrPort) (string, error) {
	if !address.IsValid() || address.Port() == 0 || address.Addr().Zone() != "" {
		return "", fmt.Errorf("%w: address %q of %s/%s", ErrInvalidCommand, address, backend, name)
	}
	return server("set server", backend, name, "addr "+address.Addr().Unmap().String()+" port "+strconv.Itoa(int(address.Port())))
}

// SetServerWeight is `set server B/S weight W`, 0 to 256.
func SetServerWeight(backend, name string, weight int) (string, error) {
	if weight < 0 || weight > 256 {
		return "", fmt.Errorf("%w: weight %d of %s/%s is not 0 to 256", ErrInvalidCommand, weight, backend, name)
	}
	return server("set server", backend, name, "weight "+strconv.Itoa(weight))
}

// SetServerState is `set server B/S state STATE`: ready, drain or maint.
func SetServerState(backend, name, state string) (string, error) {
	switch state {
	case Ready, Drain, Maint:
		return server("set server", backend, name, "state "+state)
	}
	return "", fmt.Errorf("%w: state %q of %s/%s", ErrInvalidCommand, state, backend, name)
}

// SetServerMaxConn is `set maxconn server B/S N`; 0 is no limit.
func SetServerMaxConn(backend, name string, maxConn int) (string, error) {
	if maxConn < 0 {
		return "", fmt.Errorf("%w: maxconn %d of %s/%s", ErrInvalidCommand, maxConn, backend, name)
	}
	return server("set maxconn server", backend, name, strconv.Itoa(maxConn))
}

// AddMap is `add map FILE KEY VALUE`. A key that is there already gets a second
// row: know before.
func AddMap(file, key, value string) (string, error) { return Command("add map", file, key, value) }

// SetMap is `set map FILE KEY VALUE`; the key must be there.
func SetMap(file, key, value string) (string, error) { return Command("set map", file, key, value) }

// DelMap is `del map FILE KEY`; the key must be there.
func DelMap(file, key string) (string, error) { return Command("del map", file, key) }
