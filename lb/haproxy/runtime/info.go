package runtime

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	clientnative "github.com/haproxytech/client-native/v5/runtime"
	"github.com/haproxytech/client-native/v5/runtime/options"

	"github.com/haproxytech/client-native/v5/models"
)

// Info is what a worker says of itself.
type Info struct {
	Version string
	PID     int
	Uptime  time.Duration
	// Stopping says that it is an old worker that only finishes what it has.
	Stopping bool
	// Description is the configuration's, if it has one.
	Description string
	// Connections are the current ones.
	Connections int
	// MaxConn is how many there may be, Descriptors how many files it may have open, and
	// MostSockets how many it would have if all it may do were done at once.
	MaxConn     int
	Descriptors int
	MostSockets int
}

// Info asks the worker behind the socket.
func (c *Client) Info(ctx context.Context) (Info, error) {
	text, err := c.Read(ctx, "show info")
	if err != nil {
		return Info{}, err
	}
	return ParseInfo(text)
}

// ParseInfo reads the answer to `show info`.
func ParseInfo(text string) (Info, error) {
	var info Info
	var errs []error
	number := func(key, value string) int {
		n, err := strconv.Atoi(value)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
		return n
	}
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch key {
		case "Version":
			info.Version = value
		case "Pid":
			info.PID = number(key, value)
		case "Uptime_sec":
			info.Uptime = time.Duration(number(key, value)) * time.Second
		case "Stopping":
			info.Stopping = number(key, value) != 0
		case "CurrConns":
			info.Connections = number(key, value)
		case "Maxconn":
			info.MaxConn = number(key, value)
		case "Ulimit-n":
			info.Descriptors = number(key, value)
		case "Maxsock":
			info.MostSockets = number(key, value)
		case "description":
			info.Description = value
		}
	}
	if info.PID <= 0 || info.Version == "" {
		errs = append(errs, errors.New("no pid or version"))
	}
	if err := errors.Join(errs...); err != nil {
		return Info{}, fmt.Errorf("show info: %w", err)
	}
	return info, nil
}

// Process is the whole of `show info`, typed by client-native: limits, rates, TLS
// and pool figures for display. Use [Client.Info] for what decisions rest on.
func (c *Client) Process(ctx context.Context) (*models.ProcessInfoItem, error) {
	type answer struct {
		info models.ProcessInfo
		err  error
	}
	// client-native takes no context and waits for up to 30 s; the channel has room
	// so that the reader ends by itself when nobody waits any more.
	answers := make(chan answer, 1)
	go func() {
		var a answer
		// An answer cut off in the middle of a line makes it index out of range.
		defer func() {
			if p := recover(); p != nil {
				a.err = fmt.Errorf("%w: %v", ErrTruncated, p)
			}
			answers <- a
		}()
		var single clientnative.SingleRuntime
		if a.err = single.Init(c.socket, 0, 0, options.RuntimeOptions{DoNotCheckRuntimeOnInit: true}); a.err == nil {
			a.info = single.GetInfo()
		}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("show info on %s: %w", c.socket, ctx.Err())
	case a := <-answers:
		switch {
		case a.err != nil:
			return nil, fmt.Errorf("show info on %s: %w", c.socket, a.err)
		case a.info.Error != "":
			return nil, fmt.Errorf("show info on %s: %s", c.socket, a.info.Error)
		case a.info.Info == nil || a.info.Info.Pid == nil || a.info.Info.Ulimitn == nil:
			return nil, fmt.Errorf("show info on %s: %w", c.socket, ErrTruncated)
		}
		return a.info.Info, nil
	}
}
