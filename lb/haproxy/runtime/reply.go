package runtime

import (
	"fmt"
	"strings"
)

// Severity is the level HAProxy gives a message, as in syslog; less is worse.
type Severity int

const (
	Alert   Severity = 1
	Error   Severity = 3
	Warning Severity = 4
	Notice  Severity = 5
	// Informational is also what a command that HAProxy does not know is answered
	// with.
	Informational Severity = 6
	// Plain is an answer without a level: silence, or a listing.
	Plain Severity = 8
)

// Reply is what HAProxy answered to a command.
type Reply struct {
	Command  string
	Severity Severity
	// Text is without the level in front and the empty line behind it.
	Text string
}

// CommandError is a command that HAProxy refused.
type CommandError struct {
	Command  string
	Severity Severity
	Text     string
	// Unknown says that this HAProxy has no such command.
	Unknown bool
}

func (e *CommandError) Error() string {
	return fmt.Sprintf("HAProxy refused %q: %s", e.Command, strings.TrimSpace(e.Text))
}

// Err is a [*CommandError] if HAProxy did not do what it was told, else nil. A
// warning is not an error: `set server … addr` warns of every change it makes.
func (r Reply) Err() error {
	unknown := strings.HasPrefix(r.Text, "Unknown command")
	if r.Severity > Error && !unknown {
		return nil
	}
	text := r.Text
	if unknown {
		text, _, _ = strings.Cut(text, "\n")
	}
	return &CommandError{Command: r.Command, Severity: r.Severity, Text: text, Unknown: unknown}
}

// parseReply reads "[3]: text\n\n", "text\n\n" or "\n".
func parseReply(cmd, answer string) Reply {
	answer = strings.TrimRight(answer, "\n")
	r := Reply{Command: cmd, Severity: Plain, Text: answer}
	if len(answer) >= 4 && answer[0] == '[' && answer[1] >= '0' && answer[1] <= '7' && answer[2:4] == "]:" {
		r.Severity = Severity(answer[1] - '0')
		r.Text = strings.TrimPrefix(answer[4:], " ")
	}
	return r
}
