package facts

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

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

func TestShellsSayTheSame(t *testing.T) {
	ask := Ask{
		Contents: []string{"/etc/passwd", "/etc/hostname"}, Files: []string{"/etc/shadow", "/no/such/file"}, Looks: []string{"/tmp", "/etc/resolv.conf"},
		Packages: []string{"sed", "no-such-package"}, Users: []string{"root", "daemon", "no-such-user"}, Units: []string{"no-such.service"}, Stamps: "/etc/default",
	}
	script, err := ask.script("mark")
	if err != nil {
		t.Fatal(err)
	}
	var all []*Facts
	for _, shell := range [][]string{{"sh"}, {"bash"}, {"bash", "--posix"}} {
		command := exec.Command(shell[0], append(shell[1:], "-c", script)...)
		var stderr strings.Builder
		command.Stderr = &stderr
		out, err := command.Output()
		if err != nil || stderr.String() != "" {
			t.Fatalf("%s: %v: %s", shell, err, &stderr)
		}
		f, err := parse(out, ask, "mark", time.Now())
		if err != nil {
			t.Fatalf("%s: %v", shell, err)
		}
		f.Offset, f.Listeners = 0, nil // others may begin and end meanwhile
		if len(f.Users["daemon"].Groups) == 0 || f.Files["/etc/passwd"].Content == "" || len(f.Stamps) == 0 || len(f.Packages) != 1 {
			t.Errorf("%s: %+v", shell, f)
		}
		all = append(all, f)
	}
	for _, f := range all[1:] {
		if d := cmp.Diff(all[0], f, cmpopts.EquateComparable(netip.Prefix{})); d != "" {
			t.Error(d)
		}
	}
}

// Engines answer themselves, or docker does for them.
func TestEnginesAreRead(t *testing.T) {
	want := Docker{Version: "20.10.24", API: "1.41", MinAPI: "1.12"}
	for _, text := range []string{
		`{"Platform":{"Name":""},"Components":[{"Name":"Engine","Version":"20.10.24+dfsg1","Details":{"ApiVersion":"1.41"}}],"Version":"20.10.24","ApiVersion":"1.41","MinAPIVersion":"1.12"}`,
		`{"Version":"20.10.24","APIVersion":"1.41","MinAPIVersion":"1.12"}`,
	} {
		if got := docker(text); got == nil || *got != want {
			t.Errorf("%s is read as %+v", text, got)
		}
	}
	if got := docker("\n"); got != nil {
		t.Errorf("nothing is read as %+v", got)
	}
}

func TestPackagesOfRedHatAreRead(t *testing.T) {
	f, err := parse([]byte(answer("\nmark rpm\nmi-lb systemd 252-46.el9_5.3\nmi-lb docker-ce 28.1.1-1.el9\npackage chrony is not installed\n",
		"\nmark versionlock\n# x\ndocker-ce-3:28.1.1-1.el9.*\nsystemd-0:252-46.el9_5.3.*\n")), Ask{Packages: []string{"docker-ce", "chrony"}}, "mark", time.Time{})
	if err != nil || f.System.Systemd != 252 || len(f.Packages) != 1 || f.Packages["docker-ce"] != "28.1.1-1.el9" || !slices.Equal(f.Held, []string{"docker-ce"}) {
		t.Errorf("%v %+v", err, f)
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
		{Files: slices.Repeat([]string{"/" + strings.Repeat("x", 200)}, 5000)},
	} {
		if _, err := ask.script("mark"); err == nil {
			t.Errorf("%+v was accepted", ask)
		}
	}
	if s, err := (Ask{Files: []string{"/it's"}}).script("mark"); err != nil || !strings.Contains(s, `files='/it'\''s'`) {
		t.Error(s, err)
	}
}

func TestSystemsAreToldApart(t *testing.T) {
	for release, want := range map[string]Family{
		"ID=debian\nVERSION_ID=\"12\"": Debian, "ID=ubuntu\nID_LIKE=debian": Debian, "ID=linuxmint\nID_LIKE=\"ubuntu debian\"": Debian,
		"ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"": RedHat, "ID=rhel": RedHat, "ID=fedora": RedHat, "ID=alpine": "alpine", "": "",
	} {
		if got := system(records{"os-release": release}, "").Family; got != want {
			t.Errorf("%q is %q", release, got)
		}
	}
	for systemd, r := range map[string]records{"": {"systemd": "systemd 252 (252.39-1~deb12u1)\n+PAM"}, "252.39-1~deb12u1": {}, "252-46.el9_5.3": {}} {
		if s := system(r, systemd); s.Systemd != 252 {
			t.Errorf("%+v", s)
		}
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

// answer is what a machine answers that has little to say.
func answer(more ...string) string {
	text := "Welcome!\nmi-lb-facts mark\n"
	for _, word := range needed {
		text += "\nmark " + word + "\n"
	}
	return text + strings.Join(more, "") + "\nmark end\n"
}

func TestAnswersThatEndTooEarlyAreErrors(t *testing.T) {
	if _, err := parse([]byte(answer()), Ask{}, "mark", time.Time{}); err != nil {
		t.Error(err)
	}
	for _, text := range []string{
		"", "mi-lb-facts mark\n", strings.TrimSuffix(answer(), "mark end\n"), strings.Replace(answer(), "mark sockets\n", "", 1),
		strings.Replace(answer(), "mi-lb-facts mark", "mi-lb-facts other", 1), answer("\nmark missing\nawk\n"),
	} {
		if f, err := parse([]byte(text), Ask{}, "mark", time.Time{}); err == nil {
			t.Errorf("%q is %+v", text, f)
		}
	}
}

func TestFilesThatChangeWhileTheyAreReadAreErrors(t *testing.T) {
	const stat = "\nmark stat\nf 644 2 1.5 root:domain users\t/a b\nf 644 0 1.5 root:root\t/empty\n"
	sums := fmt.Sprintf("\nmark sha256\n%x  /a b\n%x  /empty\n", sha256.Sum256([]byte("3\n")), sha256.Sum256(nil))
	f, err := parse([]byte(answer(stat, sums, "\nmark contents\n2 /a b\n0 /empty\n3\n")), Ask{}, "mark", time.Time{})
	if err != nil || f.Files["/a b"].Content != "3\n" || f.Files["/a b"].Owner != "root:domain users" || f.Files["/a b"].Modified != 1 || f.Files["/empty"].Content != "" {
		t.Fatalf("%v %+v", err, f)
	}
	for _, contents := range []string{"2 /a b\n0 /empty\n3", "2 /a b\n0 /empty\n3\n4", "2 /a b\n0 /empty\n4\n", "2 /a b\n", "-1 /a b\nx"} {
		if f, err := parse([]byte(answer(stat, sums, "\nmark contents\n"+contents)), Ask{}, "mark", time.Time{}); !errors.Is(err, ErrChanging) {
			t.Errorf("%q: %v %+v", contents, err, f)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(answer()))
	script, err := Ask{Contents: []string{"/etc/passwd"}, Packages: []string{"sed"}, Users: []string{"root"}, Disks: []string{"/"}, Units: []string{"cron.service"}}.script("mark")
	if err != nil {
		f.Fatal(err)
	}
	out, err := exec.Command("sh", "-c", script).Output()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(out)
	f.Fuzz(func(t *testing.T, answer []byte) {
		facts, err := parse(answer, Ask{Disks: []string{"/"}}, "mark", time.Unix(0, 0))
		if (facts == nil) == (err == nil) {
			t.Fatalf("%v %v", facts, err)
		}
	})
}

func FuzzRecords(f *testing.F) {
	f.Add("Id=a.service", "1 x", "tcp 0100007F:1F90 00000000:0000 7", "root:x:0:0:r:/root:/bin/sh", "1 2 4096 7", "f 644 1 2.5 root:root\t/x", "ID=debian", "1 /x\ny", "root : root adm")
	f.Fuzz(func(t *testing.T, unitText, comm, sockets, passwd, lines, stat, release, content, groups string) {
		facts := &Facts{Units: map[string]Unit{}, Files: map[string]File{}, Packages: map[string]string{}, Users: map[string]User{}}
		units(unitText, facts)
		r := records{"sockets": sockets, "stat": stat, "sha256": stat, "os-release": release, "systemd": release, "addresses": lines, "dpkg": lines, "rpm": lines,
			"versionlock": lines, "cgroups": comm, "owners": lines, "passwd": passwd, "groups": groups, "contents": content, "uname": release}
		listeners(r, processNames(comm))
		users(r, facts)
		disks([]string{"/"}, lines)
		_ = files(r, facts)
		system(r, lines)
		addresses(r)
		outward(lines)
		packages(r, facts)
		lockHolders(lines, nil)
		isRoot(lines)
	})
}
