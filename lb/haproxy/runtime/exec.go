package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// maxLine is how many bytes of commands go on one line. HAProxy's buffer is
	// 16384 bytes unless tuned, and from 3.0 on it refuses longer lines.
	maxLine = 15 << 10
	// defaultTimeout bounds one line of commands where the context does not.
	defaultTimeout = 10 * time.Second
	// maxAnswer bounds what is read for one line: 50,000 servers take 4 MB of
	// `show servers state` and 12 MB of `show stat`.
	maxAnswer = 256 << 20

	separator = ";show version"
)

// ErrTruncated is wrapped by the error for an answer that ended, or did not come,
// before it was complete. Whether the commands in question took effect is not
// known.
var ErrTruncated = errors.New("the answer is incomplete")

// Client sends commands to the worker behind a runtime socket of level admin. It
// is safe for concurrent use.
type Client struct {
	socket  string
	timeout time.Duration

	mu     sync.Mutex
	probed *Capabilities
}

// NewClient is a client of the UNIX socket at the path. Nothing is dialled yet.
func NewClient(socket string) *Client { return &Client{socket: socket, timeout: defaultTimeout} }

// Socket is the path of the UNIX socket.
func (c *Client) Socket() string { return c.socket }

// Exec runs the commands in order and returns their replies by position. A command
// that HAProxy refuses does not stop the ones after it; see [Reply.Err]. The error
// is for what kept commands from being answered: a command that is not one
// ([ErrInvalidCommand]; nothing was sent), no connection, a deadline, an answer
// cut short ([ErrTruncated]). The replies that came before it are returned with
// it: len(replies) commands are known to have been answered.
func (c *Client) Exec(ctx context.Context, cmds []string) ([]Reply, error) {
	for _, cmd := range cmds {
		if err := check(cmd); err != nil {
			return nil, err
		}
	}
	replies := make([]Reply, 0, len(cmds))
	for rest := cmds; len(rest) > 0; {
		n := fitting(rest)
		answered, err := c.line(ctx, rest[:n], nil)
		replies = append(replies, answered...)
		if err != nil {
			return replies, fmt.Errorf("run %d of %d commands on %s, from %q: %w", len(cmds)-len(replies), len(cmds), c.socket, cmds[len(replies)], err)
		}
		rest = rest[n:]
	}
	return replies, nil
}

// Read runs one command and returns the text of its reply. A reply that is an
// error is returned as one.
func (c *Client) Read(ctx context.Context, cmd string) (string, error) {
	replies, err := c.Exec(ctx, []string{cmd})
	if err != nil {
		return "", err
	}
	if err := replies[0].Err(); err != nil {
		return "", err
	}
	return replies[0].Text, nil
}

// fitting is how many of the commands, at least one, go on one line.
func fitting(cmds []string) int {
	size := len("set severity-output number;show version")
	for i, cmd := range cmds {
		size += 1 + len(cmd) + len(separator)
		if size > maxLine && i > 0 {
			return i
		}
	}
	return len(cmds)
}

// line sends the commands on one line and reads their answers. The payload, if
// any, belongs to the last command; it is complete with the empty line that ends it.
func (c *Client) line(ctx context.Context, cmds []string, payload []byte) ([]Reply, error) {
	var out bytes.Buffer
	out.WriteString("set severity-output number;show version")
	for i, cmd := range cmds {
		out.WriteString(";")
		out.WriteString(cmd)
		if payload == nil || i < len(cmds)-1 {
			out.WriteString(separator)
		}
	}
	if payload != nil {
		out.WriteString(" <<")
	}
	out.WriteString("\n")
	out.Write(payload)
	answer, err := exchange(ctx, c.socket, c.timeout, out.Bytes())
	replies, complete := split(string(answer), cmds, payload != nil)
	// A worker that ends may reset the connection behind its last answer. After a
	// payload nothing but the end of the connection says that the answer is whole.
	if err != nil && (payload != nil || !complete) {
		return replies, errors.Join(ErrTruncated, err)
	}
	if !complete {
		return replies, fmt.Errorf("%w: %d of %d commands answered", ErrTruncated, len(replies), len(cmds))
	}
	return replies, nil
}

// split takes the answers to a line apart. Complete says that each command has
// its answer and nothing is left over. After a payload no separator can follow:
// its command is answered if the connection ended in order after some answer.
func split(answer string, cmds []string, payload bool) (replies []Reply, complete bool) {
	// The answer to `set severity-output` is an empty line.
	rest, ok := strings.CutPrefix(answer, "\n")
	if !ok {
		return nil, false
	}
	end := strings.Index(rest, "\n\n")
	if end < 0 {
		return nil, false
	}
	mark := rest[:end+2]
	rest = rest[end+2:]
	for i, cmd := range cmds {
		if payload && i == len(cmds)-1 {
			if !strings.HasSuffix(rest, "\n") {
				return replies, false
			}
			return append(replies, parseReply(cmd, rest)), true
		}
		// No answer is empty: the least is an empty line.
		at := -1
		for from := 1; from < len(rest); {
			next := strings.Index(rest[from:], mark)
			if next < 0 {
				break
			}
			if next += from; rest[next-1] == '\n' {
				at = next
				break
			}
			from = next + 1
		}
		if at < 0 {
			return replies, false
		}
		replies = append(replies, parseReply(cmd, rest[:at]))
		rest = rest[at+len(mark):]
	}
	return replies, rest == ""
}

// exchange sends the line over a connection of its own and reads until HAProxy
// closes it. What was read is returned also with an error.
func exchange(ctx context.Context, socket string, timeout time.Duration, line []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer func() {
		stop()
		_ = conn.Close()
	}()
	if _, err := conn.Write(line); err != nil {
		return nil, withCause(ctx, err)
	}
	var answer bytes.Buffer
	n, err := answer.ReadFrom(io.LimitReader(conn, maxAnswer+1))
	switch {
	case err != nil:
		return answer.Bytes(), withCause(ctx, err)
	case n > maxAnswer:
		return answer.Bytes(), fmt.Errorf("more than %d bytes of answer", maxAnswer)
	}
	return answer.Bytes(), nil
}

// withCause names the context's end where it is what cut the connection.
func withCause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ctx.Err(), err)
	}
	return err
}
