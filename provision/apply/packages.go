package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
	"github.com/mi-lb/mi-lb/provision/plan"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

// install installs all packages of the plan at once.
func (s *steps) install(ctx context.Context) error {
	var packages []desired.Package
	var names []string
	fresh := false
	for _, c := range s.plan.Changes {
		switch c.Kind {
		case plan.RepositoryFile:
			fresh = true
		case plan.Package:
			packages = append(packages, *c.Package)
			names = append(names, c.Package.Name)
		}
	}
	if err := s.lockFree(ctx); err != nil {
		return err
	}
	s.say("installs %s", strings.Join(names, ", "))
	var line string
	switch s.facts.System.Family {
	case facts.Debian:
		line = aptLine(packages, fresh)
	case facts.RedHat:
		line = dnfLine(packages)
	default:
		return fmt.Errorf("packages cannot be installed on %s", s.facts.System.Name)
	}
	_, err := s.machine.Run(ctx, ssh.Command{Line: `script=$(cat) && eval "$script"`, Stdin: strings.NewReader(line), Root: true})
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("install %s: %w", strings.Join(names, ", "), &ssh.ExitError{Host: exit.Host, Line: "the package manager", Code: exit.Code, Stderr: lastSentences(exit.Stderr)})
	}
	if err != nil {
		return fmt.Errorf("install %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

// lastSentences are the end of what a package manager says, without its progress.
func lastSentences(text string) string {
	var kept []string
	for line := range strings.SplitSeq(text, "; ") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "(Reading database") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept[max(0, len(kept)-8):], "; ")
}

// aptScript installs packages with apt. Services that packages bring are not
// started, as their files are not written yet: policy-rc.d forbids it while this
// shell lives, so that one that is left behind by a kill forbids nothing. Lists of
// packages are read again where they do not have what is wanted.
const aptScript = `
export DEBIAN_FRONTEND=noninteractive DEBIAN_PRIORITY=critical NEEDRESTART_MODE=l LC_ALL=C.UTF-8
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ] || grep -q '^# by mi-lb' "$policy"; then
	printf '#!/bin/sh\n# by mi-lb, while it installs packages\nkill -0 %s 2>/dev/null && exit 101\nexit 0\n' "$$" >"$policy" && chmod 0755 "$policy" || exit 1
	trap 'rm -f "$policy"' EXIT
	trap 'exit 143' TERM INT HUP
fi
get() { apt-get -q -y -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o APT::Install-Recommends=false "$@" </dev/null; }
# What an interrupted run left half installed.
if [ -n "$(find /var/lib/dpkg/updates -type f -name '[0-9]*' 2>/dev/null)" ] || dpkg --audit 2>/dev/null | grep -q .; then
	dpkg --force-confdef --force-confold --configure -a </dev/null >&2 || exit 1
	get -f install >&2 || exit 1
fi
`

// aptLine is the shell that installs packages on Debian's family.
func aptLine(packages []desired.Package, fresh bool) string {
	var wanted, held []string
	for _, p := range packages {
		name := p.Name
		if p.Version != "" {
			name += "=" + p.Version
			held = append(held, ssh.Quote(p.Name))
		}
		wanted = append(wanted, ssh.Quote(name))
	}
	var b strings.Builder
	b.WriteString(aptScript)
	install := "get --allow-downgrades --allow-change-held-packages install " + strings.Join(wanted, " ") + " >&2"
	if fresh {
		b.WriteString("get update >&2 || exit 1\n")
	} else {
		install += " || { get update >&2; " + install + "; }"
	}
	b.WriteString(install + " || exit 1\n")
	if len(held) > 0 {
		b.WriteString("apt-mark hold " + strings.Join(held, " ") + " >&2 || exit 1\n")
	}
	return b.String()
}

// dnfLine is the shell that installs packages on Red Hat's family.
func dnfLine(packages []desired.Package) string {
	var wanted, names []string
	for _, p := range packages {
		name := p.Name
		if p.Version != "" {
			name += "-" + p.Version
			names = append(names, ssh.Quote(p.Name))
		}
		wanted = append(wanted, ssh.Quote(name))
	}
	var b strings.Builder
	b.WriteString("manager=$(command -v dnf || command -v yum) || { echo 'neither dnf nor yum is there' >&2; exit 1; }\n")
	if len(names) > 0 {
		b.WriteString("\"$manager\" -q versionlock delete " + strings.Join(names, " ") + " >/dev/null 2>&1\n")
	}
	list := strings.Join(wanted, " ")
	// "install" takes no step back to an older version.
	fmt.Fprintf(&b, "\"$manager\" -y install %[1]s </dev/null >&2 || \"$manager\" -y downgrade %[1]s </dev/null >&2 || exit 1\n", list)
	fmt.Fprintf(&b, "rpm -q %s >/dev/null || { echo 'the package manager did not install what was asked for' >&2; exit 1; }\n", list)
	if len(names) > 0 {
		b.WriteString("\"$manager\" -q versionlock add " + strings.Join(names, " ") + " >/dev/null 2>&1 || true\n")
	}
	return b.String()
}

// lockPatience is how long somebody else may hold the package manager's lock.
const lockPatience = 5 * time.Minute

// lockFree waits until nobody else installs packages.
func (s *steps) lockFree(ctx context.Context) error {
	patience := min(lockPatience, s.wave.Patience)
	until := time.Now().Add(patience)
	for said := ""; ; {
		f, err := facts.Gather(ctx, s.machine, facts.Ask{Stamps: s.wave.Stamps})
		if err != nil {
			return err
		}
		if f.PackageLock == "" {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("the package manager's lock is held by %s, for more than %s; wait until it is done, or end it", f.PackageLock, patience)
		}
		if said != f.PackageLock {
			said = f.PackageLock
			s.wave.event(s.node, Waiting, "for the package manager's lock, which is held by %s", said)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Second):
		}
	}
}
