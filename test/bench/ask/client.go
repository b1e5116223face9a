package ask

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// Client of one address. The zero value but for Address is ready. It is for one
// goroutine.
type Client struct {
	Address string
	// Within is when it gives an answer up; 10 s where it is 0.
	Within time.Duration

	conn   net.Conn
	reader *bufio.Reader
	used   bool
	body   []byte
	out    []byte
}

// Answer is a response. The body is valid until the next one.
type Answer struct {
	Status int
	Body   []byte
	// Repeated says that a kept connection was closed without an answer, and that the
	// request was sent once more, over a new one: RFC 9112, 9.3.1 lets clients do so for
	// a GET, and every client does.
	Repeated bool
}

// Close ends the connection.
func (c *Client) Close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

// errNoAnswer: a kept connection was closed before anything of the answer was there.
var errNoAnswer = errors.New("a kept connection was closed without an answer")

// Get asks for a path of a host.
func (c *Client) Get(host, path string) (Answer, error) {
	a, err := c.get(host, path)
	if errors.Is(err, errNoAnswer) {
		if a, err = c.get(host, path); err == nil {
			a.Repeated = true
		}
	}
	return a, err
}

func (c *Client) get(host, path string) (a Answer, err error) {
	within := c.Within
	if within == 0 {
		within = 10 * time.Second
	}
	if c.conn == nil {
		conn, err := net.DialTimeout("tcp", c.Address, within)
		if err != nil {
			return a, fmt.Errorf("connect: %w", cause(err))
		}
		c.conn, c.used = conn, false
		if c.reader == nil {
			c.reader = bufio.NewReader(conn)
		} else {
			c.reader.Reset(conn)
		}
	}
	kept := c.used
	c.used = true
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.conn.SetDeadline(time.Now().Add(within)); err != nil {
		return a, err
	}
	c.out = append(c.out[:0], "GET "...)
	c.out = append(c.out, path...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, host...)
	c.out = append(c.out, "\r\n\r\n"...)
	if _, err := c.conn.Write(c.out); err != nil {
		if kept {
			return a, errNoAnswer
		}
		return a, fmt.Errorf("write: %w", cause(err))
	}
	line, err := c.reader.ReadSlice('\n')
	if err != nil {
		if kept && len(line) == 0 && !isTimeout(err) {
			return a, errNoAnswer
		}
		return a, fmt.Errorf("read the answer: %w", cause(err))
	}
	if len(line) < 12 {
		return a, fmt.Errorf("read the answer: %q is no status line", line)
	}
	if a.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, fmt.Errorf("read the answer: %q is no status line", line)
	}
	length, closes := -1, false
	for {
		line, err := c.reader.ReadSlice('\n')
		if err != nil {
			return a, fmt.Errorf("read the headers: %w", cause(err))
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := strings.Cut(string(line), ":")
		switch strings.ToLower(name) {
		case "content-length":
			if length, err = strconv.Atoi(strings.TrimSpace(value)); err != nil || length < 0 {
				return a, fmt.Errorf("read the headers: Content-Length is %q", value)
			}
		case "connection":
			closes = strings.EqualFold(strings.TrimSpace(value), "close")
		case "transfer-encoding":
			return a, errors.New("read the headers: chunked answers are not understood here")
		}
	}
	if length < 0 { // until the end of the connection
		c.body, err = io.ReadAll(c.reader)
		closes = true
	} else {
		if cap(c.body) < length {
			c.body = make([]byte, length)
		}
		c.body = c.body[:length]
		_, err = io.ReadFull(c.reader, c.body)
	}
	if err != nil {
		return a, fmt.Errorf("read the body: %w", cause(err))
	}
	a.Body = c.body
	if closes {
		c.Close()
	}
	return a, nil
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// cause is an error without the addresses in it, so that equal ones are counted as
// such.
func cause(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
