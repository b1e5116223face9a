package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Message is a line HAProxy wrote about itself or its configuration.
type Message struct {
	// Level is slog's: ALERT is Error, WARNING Warn, NOTICE Info, DIAG Debug.
	Level slog.Level
	// PID of the process that wrote it, 0 where it did not say.
	PID int
	// File and Line are where in the configuration, "" and 0 where it is not about
	// a place.
	File string
	Line int
	Text string
}

var (
	levelled = regexp.MustCompile(`^\[(ALERT|WARNING|NOTICE|DIAG)\]\s+(?:\((\d+)\) : )?(.*)$`)
	located  = regexp.MustCompile(`\[(?:file )?([^\[\]\s:]+):(\d+)\]`)
)

// ParseMessage reads a line of HAProxy's standard error. A line that has no level
// is one of level Info.
func ParseMessage(line string) Message {
	line = strings.TrimRight(line, "\r\n")
	m := Message{Level: slog.LevelInfo, Text: line}
	parts := levelled.FindStringSubmatch(line)
	if parts == nil {
		return m
	}
	switch parts[1] {
	case "ALERT":
		m.Level = slog.LevelError
	case "WARNING":
		m.Level = slog.LevelWarn
	case "DIAG":
		m.Level = slog.LevelDebug
	}
	m.PID, _ = strconv.Atoi(parts[2])
	m.Text = parts[3]
	if place := located.FindStringSubmatch(m.Text); place != nil {
		if line, err := strconv.Atoi(place[2]); err == nil {
			m.File, m.Line = place[1], line
		}
	}
	return m
}

// Validation is what `haproxy -c` said.
type Validation struct {
	Valid bool
	// Messages are the alerts and warnings, in HAProxy's order.
	Messages []Message
	// Output is everything it printed.
	Output string
}

// InvalidError is a configuration that HAProxy does not accept.
type InvalidError struct {
	// Alerts say why; those that name a place come first.
	Alerts []Message
	Output string
}

func (e *InvalidError) Error() string {
	if len(e.Alerts) == 0 {
		return "HAProxy does not accept the configuration: " + strings.TrimSpace(e.Output)
	}
	return "HAProxy does not accept the configuration: " + texts(e.Alerts)
}

// Err is an [*InvalidError] if the configuration is not valid, else nil.
func (v Validation) Err() error {
	if v.Valid {
		return nil
	}
	return &InvalidError{Alerts: alerts(v.Messages), Output: v.Output}
}

// alerts are the messages of level Error; those with a place, if any, alone: the
// others only count them.
func alerts(messages []Message) []Message {
	var all, placed []Message
	for _, m := range messages {
		if m.Level < slog.LevelError {
			continue
		}
		all = append(all, m)
		if m.Line > 0 {
			placed = append(placed, m)
		}
	}
	if len(placed) > 0 {
		return placed
	}
	return all
}

func texts(messages []Message) string {
	lines := make([]string, len(messages))
	for i, m := range messages {
		lines[i] = m.Text
	}
	return strings.Join(lines, "; ")
}

// Validate asks the haproxy at the path whether it would run from the files, in
// order. The error is for a haproxy that could not be asked; a configuration that
// it does not accept is a result.
func Validate(ctx context.Context, haproxyPath string, files ...string) (Validation, error) {
	if len(files) == 0 {
		return Validation{}, errors.New("validate: no files")
	}
	args := []string{"-c"}
	for _, f := range files {
		args = append(args, "-f", f)
	}
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, haproxyPath, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil || (err != nil && (!errors.As(err, &exit) || !exit.Exited())) {
		return Validation{}, fmt.Errorf("validate %s with %s: %w", strings.Join(files, ", "), haproxyPath, errors.Join(ctx.Err(), err))
	}
	v := Validation{Valid: err == nil, Output: out.String()}
	for _, m := range messages(v.Output) {
		if m.Level >= slog.LevelWarn {
			v.Messages = append(v.Messages, m)
		}
	}
	return v, nil
}

// messages reads what HAProxy printed, line by line.
func messages(output string) []Message {
	var all []Message
	for line := range strings.Lines(output) {
		all = append(all, ParseMessage(line))
	}
	return all
}
