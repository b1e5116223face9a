package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// Reset takes a component off a machine, as far as an earlier run has noted what it
// has put there. What it did before a failure stays done; it is safe to do again.
func Reset(ctx context.Context, m fleet.Machine, r plan.Removal, stamps string, say func(string)) error {
	run := func(format string, arguments ...any) error {
		line := fmt.Sprintf(format, arguments...)
		_, err := m.Run(ctx, ssh.Command{Line: line, Root: true})
		return err
	}
	var failed []error
	for _, unit := range r.Units {
		say("stops " + unit)
		if err := run("systemctl disable --now %[1]s 2>/dev/null || ! systemctl is-active --quiet %[1]s", ssh.Quote(unit)); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return errors.Join(failed...) // files are not taken away from what runs
	}
	for _, unit := range r.Masked {
		if err := run("systemctl unmask --quiet %s", ssh.Quote(unit)); err != nil {
			return err
		}
	}
	for _, path := range append(append([]string{}, r.Files...), r.Programs...) {
		say("removes " + path)
		if err := run("rm -rf -- %s", ssh.Quote(path)); err != nil {
			return err
		}
	}
	for _, path := range r.Directories {
		say("removes " + path)
		if err := run("rm -rf -- %s", ssh.Quote(path)); err != nil {
			return err
		}
	}
	if len(r.Units)+len(r.Masked) > 0 {
		if err := run("systemctl daemon-reload; systemctl reset-failed 2>/dev/null; true"); err != nil {
			return err
		}
	}
	var names []string
	for _, name := range r.Stamps {
		names = append(names, ssh.Quote(name))
	}
	if len(names) == 0 {
		return nil
	}
	return run("cd %s && rm -f -- %s", ssh.Quote(stamps), strings.Join(names, " "))
}
