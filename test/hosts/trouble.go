package hosts

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// CutOff pulls its network cable: nothing reaches it, and it reaches nothing, until
// [Machine.Reconnect].
func (m *Machine) CutOff(ctx context.Context) error {
	if m.link != "" {
		return nil
	}
	// The link's other end is on this machine.
	index, err := m.Run(ctx, "cat /sys/class/net/eth0/iflink")
	if err != nil {
		return fmt.Errorf("cut off %s: %w", m.Name, err)
	}
	links, err := filepath.Glob("/sys/class/net/*/ifindex")
	if err != nil {
		return err
	}
	for _, link := range links {
		if text, err := os.ReadFile(link); err == nil && strings.TrimSpace(string(text)) == index {
			name := filepath.Base(filepath.Dir(link))
			if err := setLink(ctx, name, "down"); err != nil {
				return fmt.Errorf("cut off %s: %w", m.Name, err)
			}
			m.link = name
			return nil
		}
	}
	return fmt.Errorf("cut off %s: no interface has index %s", m.Name, index)
}

// Reconnect undoes [Machine.CutOff].
func (m *Machine) Reconnect(ctx context.Context) error {
	if m.link == "" {
		return nil
	}
	if err := setLink(ctx, m.link, "up"); err != nil {
		return fmt.Errorf("reconnect %s: %w", m.Name, err)
	}
	m.link = ""
	return nil
}

func setLink(ctx context.Context, name, state string) error {
	if output, err := exec.CommandContext(ctx, "ip", "link", "set", name, state).CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set %s %s: %w: %s", name, state, err, output)
	}
	return nil
}

// FillDisk puts the directory onto a file system of so many bytes, with what was in
// it, and leaves no room there until [Machine.FreeDisk]. What is written to it
// before that is lost then.
func (m *Machine) FillDisk(ctx context.Context, directory string, bytes int64) error {
	_, err := m.Run(ctx, fmt.Sprintf(`set -e
mkdir -p /run/full
mount -t tmpfs -o size=%d,mode=755 tmpfs /run/full
mkdir /run/full/upper /run/full/work
chmod --reference=%[2]s /run/full/upper
mount -t overlay -o lowerdir=%[2]s,upperdir=/run/full/upper,workdir=/run/full/work overlay %[2]s
cat /dev/zero >/run/full/rest 2>/dev/null || :`, bytes, directory))
	if err != nil {
		return fmt.Errorf("fill %s: %w", directory, err)
	}
	return nil
}

// FreeDisk undoes [Machine.FillDisk].
func (m *Machine) FreeDisk(ctx context.Context, directory string) error {
	_, err := m.Run(ctx, fmt.Sprintf("umount -l %s && umount -l /run/full && rmdir /run/full", directory))
	return err
}

// SkewClock has the machine's clock be wrong, as far as anybody sees who asks for
// the time with the date command by its name, which is how mi-lb asks: machines
// share a kernel, and so a clock. 0 sets it right.
func (m *Machine) SkewClock(ctx context.Context, by time.Duration) error {
	const path = "/usr/local/bin/date"
	if by == 0 {
		_, err := m.Run(ctx, "rm -f "+path)
		return err
	}
	// With "now" in nanoseconds, so that the wrong clock ticks like the right one.
	script := fmt.Sprintf("#!/bin/sh\nexec /bin/date -d \"@$(/bin/date -d '%+d seconds' +%%s.%%N)\" \"$@\"\n", int(by.Seconds()))
	return m.Write(ctx, path, script, "755")
}

// HoldPackageLock has a process hold the lock of the package manager, as an
// unattended upgrade does, until release is called.
func (m *Machine) HoldPackageLock(ctx context.Context) (release func(context.Context) error, err error) {
	const script = `use Fcntl; open my $f, "+>", "/var/lib/dpkg/lock-frontend" or die; ` +
		`my $l = pack "s s l! l! i", F_WRLCK, 0, 0, 0, 0; fcntl $f, F_SETLK, $l or die "held: $!"; ` +
		`open my $r, ">", "/run/package-lock-held"; close $r; sleep 3600`
	return m.occupy(ctx, "package-lock", script, "test -e /run/package-lock-held", "rm -f /run/package-lock-held")
}

// Listen has a process listen at a TCP port of all addresses until release is called.
func (m *Machine) Listen(ctx context.Context, port int) (release func(context.Context) error, err error) {
	script := fmt.Sprintf(`use Socket; socket my $s, PF_INET, SOCK_STREAM, 0 or die; setsockopt $s, SOL_SOCKET, SO_REUSEADDR, 1; `+
		`bind $s, sockaddr_in(%d, INADDR_ANY) or die "taken: $!"; listen $s, 8; sleep 3600`, port)
	return m.occupy(ctx, fmt.Sprintf("listener-%d", port), script, fmt.Sprintf("ss -Hltn 'sport = :%d' | grep -q .", port), "true")
}

// occupy runs a Perl script (Debian's perl-base is on every machine) as a service,
// until release is called. Ready is a command that succeeds once it is.
func (m *Machine) occupy(ctx context.Context, unit, script, ready, after string) (func(context.Context) error, error) {
	if err := m.Write(ctx, "/run/"+unit+".pl", script+"\n", "600"); err != nil {
		return nil, err
	}
	line := fmt.Sprintf("systemd-run --quiet --unit=%[1]s perl /run/%[1]s.pl && for i in $(seq 100); do %[2]s && exit 0; systemctl is-active -q %[1]s || break; sleep 0.1; done; journalctl -u %[1]s -n 5 --no-pager >&2; exit 1", unit, ready)
	if _, err := m.Run(ctx, line); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := m.Run(ctx, fmt.Sprintf("systemctl stop %s; %s", unit, after))
		return err
	}, nil
}

// Rekey gives the machine another host key, as an installation from scratch would.
// The known hosts keep the old one.
func (m *Machine) Rekey(ctx context.Context) error {
	key, text, err := hostKey()
	if err != nil {
		return err
	}
	if err := m.Write(ctx, "/etc/ssh/ssh_host_ed25519_key", text, "600"); err != nil {
		return err
	}
	if _, err := m.Run(ctx, "systemctl restart ssh"); err != nil {
		return err
	}
	m.HostKey = key
	return nil
}
