package apply

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/fleet"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// steps are the changes of one component on one machine.
type steps struct {
	wave    *waveRun
	node    *cluster.Node
	machine fleet.Machine
	facts   *facts.Facts
	plan    *plan.Host
	say     func(format string, arguments ...any)
}

// run runs a line of shell as root.
func (s *steps) run(ctx context.Context, line string) error {
	_, err := s.machine.Run(ctx, ssh.Command{Line: line, Root: true})
	return err
}

// prepare makes all changes but those that make units run them, and returns how
// many were made.
func (s *steps) prepare(ctx context.Context) (made int, err error) {
	if err := s.spoil(ctx); err != nil {
		return 0, err
	}
	begun := false
	var then []string
	for _, c := range s.plan.Changes {
		if c.Kind.Activates() {
			continue
		}
		if c.Kind == plan.Package {
			if begun {
				continue // all packages are installed at once
			}
			begun = true
		}
		if err := s.change(ctx, c); err != nil {
			return made, err
		}
		made++
		if f := c.File; f != nil && f.Then != "" && s.plan.Stamps[plan.ThenStamp(*f)] != "" && !slices.Contains(then, f.Then) {
			then = append(then, f.Then)
		}
	}
	for _, line := range then {
		s.say("runs %s", line)
		if err := s.run(ctx, line); err != nil {
			return made, err
		}
	}
	if s.reloads() {
		s.say("systemctl daemon-reload")
		if err := s.run(ctx, "systemctl daemon-reload"); err != nil {
			return made, err
		}
	}
	return made, s.stamp(ctx, s.plan.Stamps)
}

// reloads says whether systemd must read its units again.
func (s *steps) reloads() bool {
	for _, c := range s.plan.Changes {
		if c.Kind == plan.UnitFile || c.Kind == plan.DropIn {
			return true
		}
		if u := c.Unit; u != nil && s.facts.Units[u.Name].Stale {
			return true
		}
	}
	return false
}

// change makes one change.
func (s *steps) change(ctx context.Context, c plan.Change) error {
	switch {
	case c.Kind == plan.Mask:
		s.say("masks %s", c.Name)
		return s.run(ctx, "systemctl mask --quiet "+ssh.Quote(c.Name)+" && { systemctl stop "+ssh.Quote(c.Name)+" 2>/dev/null || true; }")
	case c.Kind == plan.Package:
		return s.install(ctx)
	case c.Kind == plan.User:
		s.say("user %s", c.Name)
		return s.run(ctx, userLine(*c.User))
	case c.Kind == plan.Directory:
		s.say("directory %s", c.Name)
		return s.run(ctx, directoryLine(*c.Dir))
	case c.Kind == plan.Program && c.Attributes:
		return s.run(ctx, fmt.Sprintf("chmod %04o %s", c.Program.Mode.Perm(), ssh.Quote(c.Program.Path)))
	case c.Kind == plan.Program:
		return s.program(ctx, *c.Program)
	case c.Kind == plan.Then:
		return nil // it runs behind all files
	case c.Sign == plan.Remove:
		s.say("removes %s", c.Name)
		line := "rm -f -- " + ssh.Quote(c.Name)
		if c.Kind == plan.UnitFile {
			unit := ssh.Quote(path.Base(c.Name))
			line = "systemctl disable --now " + unit + " 2>/dev/null; systemctl reset-failed " + unit + " 2>/dev/null; " + line
		}
		return s.run(ctx, line)
	case c.Attributes:
		s.say("%s", c.Name)
		return s.run(ctx, attributesLine(*c.File))
	case c.File != nil:
		return s.file(ctx, *c.File)
	}
	return fmt.Errorf("%s %s: it is not known how to do that", c.Kind, c.Name)
}

// file writes a file in one step, after its check.
func (s *steps) file(ctx context.Context, f desired.File) error {
	s.say("writes %s", f.Path)
	target, directory := f.Path, path.Dir(f.Path)
	if err := s.run(ctx, fmt.Sprintf(`[ -d %[1]s ] || mkdir -p -m 0755 %[1]s`, ssh.Quote(directory))); err != nil {
		return fmt.Errorf("write %s: %w", f.Path, err)
	}
	if f.Check != "" {
		// Of the same extension, and in the same directory: the check may look at both.
		target = path.Join(directory, ".mi-lb-check-"+path.Base(f.Path))
	}
	_, err := s.machine.Upload(ctx, ssh.File{Path: target, Mode: f.Mode, Owner: f.Owner, Root: true}, strings.NewReader(f.Bytes()))
	if err != nil {
		return err
	}
	if f.Check == "" {
		return nil
	}
	check := strings.ReplaceAll(f.Check, "%s", ssh.Quote(target))
	if err := s.run(ctx, check); err != nil {
		if removing := s.run(ctx, "rm -f -- "+ssh.Quote(target)); removing != nil {
			err = errors.Join(err, removing)
		}
		return fmt.Errorf("%s is not replaced, as what it was to become is not good: %w", f.Path, err)
	}
	return s.run(ctx, "mv -fT -- "+ssh.Quote(target)+" "+ssh.Quote(f.Path))
}

func attributesLine(f desired.File) string {
	line := fmt.Sprintf("chmod %04o %s", f.Mode.Perm(), ssh.Quote(f.Path))
	if f.Owner != "" {
		line = "chown " + ssh.Quote(f.Owner) + " " + ssh.Quote(f.Path) + " && " + line
	}
	return line
}

func directoryLine(d desired.Directory) string {
	line := fmt.Sprintf("mkdir -p %[1]s && chmod %04[2]o %[1]s", ssh.Quote(d.Path), d.Mode.Perm())
	if d.Owner != "" {
		line += " && chown " + ssh.Quote(d.Owner) + " " + ssh.Quote(d.Path)
	}
	return line
}

// userLine makes a user, or adds it to groups.
func userLine(u desired.User) string {
	name := ssh.Quote(u.Name)
	home := ssh.Quote("/nonexistent")
	if u.Home != "" {
		home = ssh.Quote(u.Home)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "set -e; getent group %[1]s >/dev/null || groupadd --system %[1]s; ", name)
	for _, g := range u.Groups {
		fmt.Fprintf(&b, "getent group %[1]s >/dev/null || groupadd --system %[1]s; ", ssh.Quote(g))
	}
	fmt.Fprintf(&b, "getent passwd %[1]s >/dev/null || useradd --system --gid %[1]s --home-dir %[2]s --no-create-home --shell /usr/sbin/nologin %[1]s", name, home)
	if len(u.Groups) > 0 {
		fmt.Fprintf(&b, "; usermod --append --groups %s %s", ssh.Quote(strings.Join(u.Groups, ",")), name)
	}
	return b.String()
}

// spoil takes away the stamps that will not be true any more, and notes what is
// going to be put there, before anything is changed.
func (s *steps) spoil(ctx context.Context) error {
	var b strings.Builder
	b.WriteString("umask 022; mkdir -p " + ssh.Quote(path.Dir(s.wave.Stamps)) + " && umask 077 && mkdir -p " + ssh.Quote(s.wave.Stamps) + " && cd " + ssh.Quote(s.wave.Stamps))
	if len(s.plan.Spoils) > 0 {
		b.WriteString(" && rm -f --")
		for _, name := range s.plan.Spoils {
			b.WriteString(" " + ssh.Quote(name))
		}
	}
	if err := s.run(ctx, b.String()); err != nil {
		return fmt.Errorf("note what is begun: %w", err)
	}
	return s.stamp(ctx, map[string]string{plan.ManifestStamp(s.plan.Part.Component): s.plan.Manifest})
}

// stamp notes what is done.
func (s *steps) stamp(ctx context.Context, stamps map[string]string) error {
	if len(stamps) == 0 {
		return nil
	}
	var in strings.Builder
	for _, name := range slices.Sorted(maps.Keys(stamps)) {
		fmt.Fprintf(&in, "%s %s\n", name, base64.StdEncoding.EncodeToString([]byte(stamps[name])))
	}
	line := fmt.Sprintf(`umask 077; cd %s && while read -r name text; do printf %%s "$text" | base64 -d >.new && mv -fT -- .new "$name" || exit 1; done`, ssh.Quote(s.wave.Stamps))
	if _, err := s.machine.Run(ctx, ssh.Command{Line: line, Stdin: strings.NewReader(in.String()), Root: true}); err != nil {
		return fmt.Errorf("note what is done: %w", err)
	}
	return nil
}
