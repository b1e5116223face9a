package hosts_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/ssh"
	"github.com/mi-lb/mi-lb/test/hosts"
)

// TestMachines runs what tests of provisioning rely on, on one pair of machines.
func TestMachines(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	t.Cleanup(cancel)
	h := hosts.Start(t, hosts.Spec{Names: []string{"one", "two"}})
	one, two := h.Machine("one"), h.Machine("two")

	run := func(t *testing.T, m *hosts.Machine, line string) string {
		t.Helper()
		output, err := m.Run(ctx, line)
		if err != nil {
			t.Fatal(err)
		}
		return output
	}
	eventually := func(t *testing.T, what string, holds func() bool) {
		t.Helper()
		for begin := time.Now(); !holds(); time.Sleep(50 * time.Millisecond) {
			if time.Since(begin) > time.Minute {
				t.Fatalf("not seen in a minute: %s", what)
			}
		}
	}

	t.Run("systemd is up and nothing failed", func(t *testing.T) {
		eventually(t, "systemd running", func() bool {
			state, _ := one.Run(ctx, "systemctl is-system-running; true")
			return state == "running"
		})
		if name := run(t, one, "hostname"); name != "one" {
			t.Errorf("the host name is %q", name)
		}
	})

	t.Run("logins", func(t *testing.T) {
		for _, c := range []struct {
			user     string
			password bool
			become   cluster.Become
			secret   string
			want     error
		}{
			{user: hosts.Admin},
			{user: hosts.Admin, password: true},
			{user: hosts.Root},
			{user: hosts.Deploy, secret: hosts.Password},
			{user: hosts.Deploy, want: ssh.ErrSudoPasswordNeeded},
			{user: hosts.Deploy, secret: "wrong", want: ssh.ErrWrongSudoPassword},
			{user: hosts.Guest, secret: hosts.Password, want: ssh.ErrNoSudo},
		} {
			t.Run(fmt.Sprintf("%s password=%t sudo=%q", c.user, c.password, c.secret), func(t *testing.T) {
				// An empty ssh_config: whoever runs the test may have one.
				config := filepath.Join(t.TempDir(), "config")
				if err := os.WriteFile(config, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				dialer := ssh.NewDialer(ssh.Options{KnownHosts: h.KnownHosts})
				t.Cleanup(func() { dialer.Close() })
				connection := cluster.Connection{Host: one.Address.String(), User: c.user, ConfigFile: config, Become: cluster.BecomeAuto}
				if c.password {
					connection.Password = redact.New(hosts.Password)
				} else {
					connection.KeyFile = h.KeyFile
				}
				connection.BecomePassword = redact.New(c.secret)
				host, err := dialer.Connect(ctx, ssh.Target{Name: "one", Connection: connection})
				if err != nil {
					t.Fatal(err)
				}
				defer host.Close()
				result, err := host.Run(ctx, ssh.Command{Line: "id -u", Root: true})
				if !errors.Is(err, c.want) {
					t.Fatalf("error %v; want %v", err, c.want)
				}
				if err == nil && strings.TrimSpace(string(result.Stdout)) != "0" {
					t.Errorf("id is %s", result.Stdout)
				}
			})
		}
	})

	t.Run("apt installs, and Docker runs containers in a machine", func(t *testing.T) {
		run(t, one, "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends docker.io iptables busybox-static")
		run(t, one, "tar -C / -c bin/busybox | docker import - busybox")
		run(t, one, "docker run -d --name web -p 8000:80 busybox /bin/busybox sh -c 'mkdir /www; echo hello >/www/index.html; exec /bin/busybox httpd -f -p 80 -h /www'")
		eventually(t, "the container answering", func() bool {
			response, err := http.Get("http://" + one.Address.String() + ":8000/")
			if err != nil {
				return false
			}
			defer response.Body.Close()
			body, _ := io.ReadAll(response.Body)
			return string(body) == "hello\n"
		})
	})

	t.Run("no way out but to apt's sources", func(t *testing.T) {
		proxy := run(t, one, `apt-config shell P Acquire::http::Proxy | sed "s/P='\(.*\)'/\1/"`)
		address, err := url.Parse(proxy)
		if err != nil {
			t.Fatal(err)
		}
		client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(address)}}
		response, err := client.Get("http://127.0.0.1:1/")
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != http.StatusForbidden {
			t.Errorf("the proxy answers %s", response.Status)
		}
	})

	t.Run("names", func(t *testing.T) {
		if got := run(t, one, "getent ahostsv4 "+hosts.Outside+" | head -n 1"); !strings.HasPrefix(got, h.Gateway.String()+" ") {
			t.Errorf("%s is %q", hosts.Outside, got)
		}
		run(t, one, "! getent ahostsv4 nowhere.test")
	})

	t.Run("settings of the kernel are its own", func(t *testing.T) {
		before := run(t, two, "sysctl -n net.core.somaxconn vm.swappiness fs.inotify.max_user_instances")
		run(t, one, "sysctl -q net.core.somaxconn=1234 vm.swappiness=12 fs.inotify.max_user_instances=4321")
		if got := run(t, one, "sysctl -n net.core.somaxconn vm.swappiness fs.inotify.max_user_instances"); got != "1234\n12\n4321" {
			t.Errorf("settings are %q", got)
		}
		if after := run(t, two, "sysctl -n net.core.somaxconn vm.swappiness fs.inotify.max_user_instances"); after != before {
			t.Errorf("another machine's were %q and are %q", before, after)
		}
	})

	t.Run("power off and on keeps disk, name and address", func(t *testing.T) {
		run(t, one, "echo kept >/etc/kept && rm /etc/hosts && echo '127.0.0.1 localhost mine' >/etc/hosts; sync; touch /run/gone")
		for _, off := range []func(context.Context) error{one.PowerOff, one.Shutdown} {
			if err := off(ctx); err != nil {
				t.Fatal(err)
			}
			if err := one.PowerOn(ctx); err != nil {
				t.Fatal(err)
			}
			got := run(t, one, "cat /etc/kept; hostname; ls /run/gone 2>/dev/null; cat /etc/hosts")
			if want := "kept\none\n127.0.0.1 localhost mine"; got != want {
				t.Errorf("afterwards %q; want %q", got, want)
			}
		}
		eventually(t, "Docker is back", func() bool {
			_, err := one.Run(ctx, "docker info")
			return err == nil
		})
	})

	t.Run("cut off and reconnected", func(t *testing.T) {
		ping := "ping -c 1 -W 1 " + one.Address.String()
		run(t, two, ping)
		if err := one.CutOff(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Run(ctx, ping); err == nil {
			t.Error("a machine that is cut off answers")
		}
		if err := one.Reconnect(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it answers again", func() bool { _, err := two.Run(ctx, ping); return err == nil })
	})

	t.Run("a full disk", func(t *testing.T) {
		if err := two.FillDisk(ctx, "/var/lib", 1<<20); err != nil {
			t.Fatal(err)
		}
		if _, err := two.Run(ctx, "head -c 100000 /dev/zero >/var/lib/file"); err == nil {
			t.Error("a file fits")
		}
		run(t, two, "dpkg -s sudo >/dev/null; test $(stat -f -c %a /var/lib) = 0")
		if err := two.FreeDisk(ctx, "/var/lib"); err != nil {
			t.Fatal(err)
		}
		run(t, two, "head -c 100000 /dev/zero >/var/lib/file")
	})

	t.Run("a skewed clock", func(t *testing.T) {
		if err := two.SkewClock(ctx, -time.Hour); err != nil {
			t.Fatal(err)
		}
		var seconds int64
		if _, err := fmt.Sscan(run(t, two, "date +%s"), &seconds); err != nil {
			t.Fatal(err)
		}
		if offset := time.Since(time.Unix(seconds, 0)); offset < 59*time.Minute || offset > 61*time.Minute {
			t.Errorf("the clock is %s behind", offset)
		}
		if err := two.SkewClock(ctx, 0); err != nil {
			t.Fatal(err)
		}
		run(t, two, "! test -e /usr/local/bin/date")
	})

	t.Run("the package manager's lock and a port are taken", func(t *testing.T) {
		release, err := two.HoldPackageLock(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := two.Run(ctx, "apt-get install -y less"); err == nil || !strings.Contains(err.Error(), "Could not get lock") {
			t.Errorf("apt-get says %v", err)
		}
		if err := release(ctx); err != nil {
			t.Fatal(err)
		}
		run(t, two, "apt-get install -y less")

		if release, err = two.Listen(ctx, 2181); err != nil {
			t.Fatal(err)
		}
		run(t, two, "ss -Hltnp 'sport = :2181' | grep perl")
		if err := release(ctx); err != nil {
			t.Fatal(err)
		}
		run(t, two, "! ss -Hltn 'sport = :2181' | grep .")
	})

	t.Run("another host key", func(t *testing.T) {
		before := two.HostKey
		if err := two.Rekey(ctx); err != nil {
			t.Fatal(err)
		}
		config := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(config, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		dialer := ssh.NewDialer(ssh.Options{KnownHosts: h.KnownHosts})
		t.Cleanup(func() { dialer.Close() })
		_, err := dialer.Connect(ctx, ssh.Target{Name: "two", Connection: cluster.Connection{
			Host: two.Address.String(), User: hosts.Admin, KeyFile: h.KeyFile, ConfigFile: config,
		}})
		var changed *ssh.ChangedHostKeyError
		if !errors.As(err, &changed) {
			t.Errorf("connecting says %v", err)
		}
		if string(before.Marshal()) == string(two.HostKey.Marshal()) {
			t.Error("the key is the same")
		}
	})
}
