package facts

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

func here(t testing.TB) *ssh.Host {
	t.Helper()
	d := ssh.NewDialer(ssh.Options{ConfigFile: "none", AgentSocket: "none"})
	t.Cleanup(func() { d.Close() })
	h, err := d.Connect(context.Background(), ssh.Target{Name: "me", Connection: cluster.Connection{Local: true, Become: cluster.BecomeAuto}})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestGatherSaysWhatIsThere(t *testing.T) {
	directory := t.TempDir()
	stamps := filepath.Join(directory, "stamps")
	file := filepath.Join(directory, "it's a file")
	for path, content := range map[string]string{
		filepath.Join(stamps, "consul.service"): "abc\n", filepath.Join(stamps, ".hidden"): "x", file: "one\x00two\n\n",
	} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	empty := filepath.Join(directory, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := Gather(t.Context(), here(t), Ask{
		Contents: []string{file}, Files: []string{directory, filepath.Join(directory, "missing")}, Looks: []string{empty},
		Packages: []string{"coreutils", "no-such-package"}, Users: []string{"root", "no-such-user"}, Disks: []string{"/var/lib/no/such"}, Stamps: stamps,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := f.Files[file]; got.Content != "one\x00two\n\n" || got.Mode != 0o640 || got.Owner != "root:root" || len(got.SHA256) != 64 || got.Size != 9 || got.Modified == 0 {
		t.Errorf("file: %+v", got)
	}
	if got := f.Files[directory]; !got.Directory || got.Empty {
		t.Errorf("directory: %+v", got)
	}
	if got := f.Files[empty]; !got.Directory || !got.Empty {
		t.Errorf("empty directory: %+v", got)
	}
	if len(f.Files) != 3 {
		t.Errorf("files: %v", f.Files)
	}
	if len(f.Stamps) != 1 || f.Stamps["consul.service"] != "abc" {
		t.Errorf("stamps: %q", f.Stamps)
	}
	if f.Packages["coreutils"] == "" || len(f.Packages) != 1 {
		t.Errorf("packages: %v", f.Packages)
	}
	if u := f.Users["root"]; u.Home != "/root" || len(u.Groups) == 0 || len(f.Users) != 1 {
		t.Errorf("users: %v", f.Users)
	}
	if d := f.Disks["/var/lib/no/such"]; d.Free <= 0 || d.Total < d.Free || d.Inodes <= 0 {
		t.Errorf("disk: %+v", d)
	}
	if !f.Root || f.CPUs < 1 || f.Memory < 1<<20 || f.System.Arch != "amd64" && f.System.Arch != "arm64" || f.System.Family != Debian || f.Cgroup == 0 || f.Hostname == "" {
		t.Errorf("%+v", f)
	}
	if f.Offset < -time.Second || f.Offset > time.Second {
		t.Errorf("our own clock is %s ahead of ours", f.Offset)
	}
	found := false
	for _, listener := range f.Listeners {
		if listener.Address.String() == l.Addr().String() {
			found = listener.PID == os.Getpid() && listener.Process != ""
			t.Logf("%+v", listener)
		}
	}
	if !found {
		t.Errorf("our listener %s is not among %v", l.Addr(), f.Listeners)
	}
}

func TestGatherWritesNothing(t *testing.T) {
	directory := t.TempDir()
	if _, err := Gather(t.Context(), here(t), Ask{Files: []string{directory}, Stamps: filepath.Join(directory, "stamps")}); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(directory)
	if err != nil || len(entries) != 0 {
		t.Errorf("%v %v", entries, err)
	}
	for _, word := range []string{" >/", ">>", "mkdir", "touch", "mktemp", "rm ", "mv ", "tee "} {
		if strings.Contains(strings.ReplaceAll(gatherScript, ">/dev/null", ""), word) {
			t.Errorf("the script has %q", word)
		}
	}
}

func TestWhoHoldsThePackageManagersLockIsNamed(t *testing.T) {
	if got := lockHolders("/proc/7/fd /var/lib/dpkg/lock\n/proc/7/fd /var/lib/dpkg/lock-frontend\n/proc/9/fd /var/lib/dpkg/lock\n", map[int]string{7: "apt-get"}); got != "a process (pid 9), apt-get (pid 7)" {
		t.Error(got)
	}
}

func TestNamesThatTheShellWouldReadAreRefused(t *testing.T) {
	for _, ask := range []Ask{
		{Units: []string{"a b"}}, {Units: []string{"$(x)"}}, {Packages: []string{"-x"}}, {Users: []string{""}}, {Files: []string{"relative"}},
		{Contents: []string{"/a\nb"}}, {Disks: []string{`/a\b`}},
	} {
		if _, err := ask.script(); err == nil {
			t.Errorf("%+v was accepted", ask)
		}
	}
	if s, err := (Ask{Files: []string{"/it's"}}).script(); err != nil || !strings.Contains(s, `files='/it'\''s'`) {
		t.Error(s, err)
	}
}

func TestSystemsAreToldApart(t *testing.T) {
	for release, want := range map[string]Family{
		"ID=debian\nVERSION_ID=\"12\"": Debian, "ID=ubuntu\nID_LIKE=debian": Debian, "ID=linuxmint\nID_LIKE=\"ubuntu debian\"": Debian,
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"": RedHat, "ID=rhel": RedHat, "ID=fedora": RedHat, "ID=alpine": "alpine", "": "",
	} {
		if got := system(records{"os-release": {"": release}}).Family; got != want {
			t.Errorf("%q is %q", release, got)
		}
	}
	if s := system(records{"systemd": {"": "systemd 252 (252.39-1~deb12u1)\n+PAM"}}); s.Systemd != 252 {
		t.Errorf("%+v", s)
	}
}

func TestUnitsAreRead(t *testing.T) {
	f := &Facts{Units: map[string]Unit{}}
	units("Id=a.service\nLoadState=loaded\nActiveState=active\nSubState=running\nUnitFileState=enabled\nMainPID=7\nNRestarts=2\nActiveEnterTimestamp=Sun 2026-11-22 05:00:09 UTC\nNeedDaemonReload=no\n\nId=b.service\nLoadState=not-found\nActiveState=inactive\n", f)
	want := Unit{Load: "loaded", Active: "active", Sub: "running", Enabled: "enabled", MainPID: 7, Restarts: 2, Since: time.Date(2026, 11, 22, 5, 0, 9, 0, time.UTC)}
	if got := f.Units["a.service"]; got != want {
		t.Errorf("%+v", got)
	}
	if f.Units["b.service"].Load != "not-found" || len(f.Units) != 2 {
		t.Errorf("%+v", f.Units)
	}
}

func TestAnswersThatEndTooEarlyAreErrors(t *testing.T) {
	for _, answer := range []string{"", "mi-lb-facts 1\n", "mi-lb-facts 1\nnow  MQo=\n", "now  MQo=\nend\n", "mi-lb-facts 1\nnow\nend\n", "mi-lb-facts 1\nnow  ?\nend\n"} {
		if f, err := parse([]byte(answer), Ask{}, time.Time{}); err == nil {
			t.Errorf("%q is %+v", answer, f)
		}
	}
	if _, err := parse([]byte("Welcome!\nmi-lb-facts 1\nnow  MQo=\nend\n"), Ask{}, time.Time{}); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("mi-lb-facts 1\nnow  MQo=\nend\n"))
	var out []byte
	script, err := Ask{Contents: []string{"/etc/passwd"}, Packages: []string{"sed"}, Users: []string{"root"}, Disks: []string{"/"}}.script()
	if err != nil {
		f.Fatal(err)
	}
	command := exec.Command("sh")
	command.Stdin = strings.NewReader(script)
	if out, err = command.Output(); err != nil {
		f.Fatal(err)
	}
	f.Add(out)
	f.Fuzz(func(t *testing.T, answer []byte) {
		facts, err := parse(answer, Ask{Disks: []string{"/"}}, time.Unix(0, 0))
		if (facts == nil) == (err == nil) {
			t.Fatalf("%v %v", facts, err)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add("Id=a.service", "/proc/1/comm:x", "tcp 0100007F:1F90 00000000:0000 7", "root:x:0:0:r:/root:/bin/sh\nroot", "Filesystem\n/dev/sda 1 2 3 4% /", "81a4 root:root 1 2 /x", "ID=debian")
	f.Fuzz(func(t *testing.T, unitText, comm, sockets, userText, df, stat, release string) {
		facts := &Facts{Units: map[string]Unit{}, Files: map[string]File{}, Packages: map[string]string{}}
		units(unitText, facts)
		r := records{"sockets": {"": sockets}, "stat": {"": stat}, "sha256": {"": stat}, "empty": {"": stat}, "os-release": {"": release}, "systemd": {"": release},
			"addresses": {"": df}, "routes": {"": df}, "dpkg": {"": df}, "rpm": {"": df}, "versionlock": {"": df}, "cgroups": {"": comm}, "owners": {"": df}}
		listeners(r, processNames(comm))
		user(userText)
		disks([]string{"/"}, df)
		files(r, facts)
		system(r)
		addresses(r)
		outward(df)
		packages(r, facts)
		lockHolders(df, nil)
	})
}
