package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// activate makes units run what is in place, and returns how many changes were
// made and how many units were restarted.
func (s *steps) activate(ctx context.Context) (made, restarts int, err error) {
	for _, c := range s.plan.Changes {
		if !c.Kind.Activates() {
			continue
		}
		if err := s.unit(ctx, c); err != nil {
			return made, restarts, err
		}
		made++
		if c.Kind == plan.Restart {
			restarts++
		}
		if err := s.stamp(ctx, s.plan.Units[c.Name]); c.Kind != plan.Enable && err != nil {
			return made, restarts, err
		}
	}
	return made, restarts, nil
}

// unit changes what one unit does.
func (s *steps) unit(ctx context.Context, c plan.Change) error {
	name := ssh.Quote(c.Name)
	var line string
	switch c.Kind {
	case plan.Stop:
		s.say("stops %s", c.Name)
		line = "systemctl disable --now " + name
	case plan.Enable:
		s.say("enables %s", c.Name)
		line = ""
		if s.facts.Units[c.Name].Enabled == "masked" {
			line = "systemctl unmask --quiet " + name + " && "
		}
		line += "systemctl enable --quiet " + name
	case plan.Start, plan.Restart:
		verb := "starts"
		if c.Kind == plan.Restart {
			verb = "restarts"
		}
		s.say("%s %s", verb, c.Name)
		option := ""
		if c.Unit != nil && c.Unit.NoBlock {
			option = "--no-block "
		}
		// A unit to be started may have been started meanwhile, from what was there
		// before: a restart is right for both.
		line = "systemctl reset-failed " + name + " 2>/dev/null; systemctl restart " + option + name
	case plan.Reload:
		s.say("reloads %s", c.Name)
		line = "systemctl reload-or-restart " + name
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.wave.Patience, fmt.Errorf("%s is not up after %s", c.Name, s.wave.Patience))
	defer cancel()
	if err := s.run(ctx, line); err != nil {
		return fmt.Errorf("%w%s", err, journal(context.WithoutCancel(ctx), s.machine, c.Name))
	}
	return nil
}

// journalLines is how much of a unit's journal is shown.
const journalLines = 15

// journal is the end of what a unit wrote, below a line that says so; empty if there
// is nothing.
func journal(ctx context.Context, machine interface {
	Run(context.Context, ssh.Command) (ssh.Result, error)
}, unit string) string {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	line := fmt.Sprintf("journalctl --no-pager --quiet -o short-iso -n %d -u %s 2>/dev/null", journalLines, ssh.Quote(unit))
	r, err := machine.Run(ctx, ssh.Command{Line: line, Root: true})
	text := strings.TrimSpace(string(r.Stdout))
	if err != nil || text == "" {
		return ""
	}
	return fmt.Sprintf("\nthe end of %s's journal:\n  %s", unit, strings.ReplaceAll(text, "\n", "\n  "))
}
