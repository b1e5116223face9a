package ssh

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

func TestCommandsRunThereAndHere(t *testing.T) {
	s := startSSHD(t)
	d := dialer(t, nil, s)
	for name, target := range map[string]Target{
		"there": s.target("root"),
		"here":  {Name: "me", Connection: cluster.Connection{Local: true, Become: cluster.BecomeAuto}},
	} {
		t.Run(name, func(t *testing.T) {
			h := connect(t, d, target)
			r, err := h.Run(t.Context(), Command{Line: `cat; echo "it's" >&2`, Stdin: strings.NewReader("in\n")})
			if err != nil || string(r.Stdout) != "in\n" || string(r.Stderr) != "it's\n" {
				t.Errorf("%q %q %v", r.Stdout, r.Stderr, err)
			}
			_, err = h.Run(t.Context(), Command{Line: "echo reason >&2; exit 7"})
			var exit *ExitError
			if !errors.As(err, &exit) || exit.Code != 7 || !strings.Contains(err.Error(), "reason") || !strings.Contains(err.Error(), target.Name) {
				t.Errorf("a command that fails: %v", err)
			}
			if r, err := h.Run(t.Context(), Command{Line: "id -un", Root: true}); err != nil || string(r.Stdout) != "root\n" {
				t.Errorf("as root: %q %v", r.Stdout, err)
			}
			// A command that does not read what it is given.
			if _, err := h.Run(t.Context(), Command{Line: "true", Stdin: io.LimitReader(rand.Reader, 1<<20)}); err != nil {
				t.Errorf("input that nobody reads: %v", err)
			}
			var out bytes.Buffer
			if _, err := h.Run(t.Context(), Command{Line: "head -c 3000000 /dev/zero", Stdout: &out}); err != nil || out.Len() != 3000000 {
				t.Errorf("%d bytes, %v", out.Len(), err)
			}
		})
	}
}

func TestHostKeysAreChecked(t *testing.T) {
	s, other := startSSHD(t), startSSHD(t)
	forged := func(t *testing.T) string {
		file := filepath.Join(t.TempDir(), "known_hosts")
		if err := os.WriteFile(file, fmt.Appendf(nil, "# keys\n[127.0.0.1]:%d %s\n", s.port, other.keys["ed25519"]), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	fresh := func(t *testing.T) string { return filepath.Join(t.TempDir(), "deeper", "known_hosts") }
	tests := []struct {
		name   string
		file   func(t *testing.T) string
		policy Policy
		pin    string
		want   string // of the error; empty for none
	}{
		{"known", func(t *testing.T) string { return known(t, allKinds, s) }, Strict, "", ""},
		{"unknown", fresh, Strict, "", "is not known"},
		{"unknown and accepted", fresh, AcceptNew, "", ""},
		{"changed", forged, Strict, "", "has changed"},
		{"changed, though new ones are accepted", forged, AcceptNew, "", "known_hosts:2"},
		{"changed, and nobody cares", forged, Off, "", ""},
		{"named in the inventory", fresh, Strict, s.keys["ecdsa"], ""},
		{"another one named in the inventory", fresh, AcceptNew, other.keys["ed25519"], "has changed"},
		// The server prefers ed25519; the one that is known is asked for.
		{"known by another type only", func(t *testing.T) string { return known(t, []string{"ecdsa"}, s) }, Strict, "", ""},
		{"known by RSA only", func(t *testing.T) string { return known(t, []string{"rsa"}, s) }, Strict, "", ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			file := test.file(t)
			d := dialer(t, func(o *Options) { o.KnownHosts, o.HostKeys = file, test.policy })
			target := s.target("root")
			if test.pin != "" {
				target.HostKeys = []string{test.pin}
			}
			_, err := d.Connect(t.Context(), target)
			var unknown *UnknownHostKeyError
			var changed *ChangedHostKeyError
			switch {
			case test.want == "" && err != nil:
				t.Error(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &unknown) && !errors.As(err, &changed)):
				t.Errorf("%v; want %q", err, test.want)
			}
			if test.policy == AcceptNew && test.want == "" {
				// What was accepted is known from now on.
				strict := dialer(t, func(o *Options) { o.KnownHosts = file })
				connect(t, strict, target)
			}
		})
	}
}

func TestLoginsThatAreRefusedSayWhatWasTried(t *testing.T) {
	s := startSSHD(t, "PasswordAuthentication yes")
	wrongKey := filepath.Join(t.TempDir(), "wrong")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", wrongKey)
	lockedKey := filepath.Join(t.TempDir(), "locked")
	run(t, "ssh-keygen", "-q", "-t", "ed25519", "-N", "phrase", "-f", lockedKey)
	tests := []struct {
		name   string
		change func(*Target)
		want   string
	}{
		{"a wrong key", func(t *Target) { t.KeyFile = wrongKey }, "refused; tried key " + wrongKey},
		{"no key at all", func(t *Target) { t.KeyFile = "" }, "tried nothing"},
		{"a wrong password", func(t *Target) { t.KeyFile, t.User, t.Password = "", asked, redact.New("wrong-password") }, "tried the password"},
		{"a key that is not there", func(t *Target) { t.KeyFile = "/nowhere/key" }, "/nowhere/key"},
		{"a key with a passphrase", func(t *Target) { t.KeyFile = lockedKey }, "it has a passphrase"},
		{"an unknown login", func(t *Target) { t.User = "nobody-at-all" }, "log in as nobody-at-all@"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			target := s.target("root")
			test.change(&target)
			_, err := dialer(t, nil, s).Connect(t.Context(), target)
			if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "wrong-password") {
				t.Errorf("%v; want %q", err, test.want)
			}
		})
	}
	t.Run("the right password", func(t *testing.T) {
		target := s.target(asked)
		target.KeyFile, target.Password = "", redact.New(loginPassword)
		connect(t, dialer(t, nil, s), target)
	})
	t.Run("the right passphrase", func(t *testing.T) {
		copied := filepath.Join(t.TempDir(), "copy")
		data, err := os.ReadFile(clientKey(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied, data, 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "ssh-keygen", "-q", "-p", "-P", "", "-N", "phrase", "-f", copied)
		target := s.target("root")
		target.KeyFile = copied
		connect(t, dialer(t, func(o *Options) {
			o.Passphrase = func(string) (redact.Text, error) { return redact.New("phrase"), nil }
		}, s), target)
	})
}

func TestSudo(t *testing.T) {
	s := startSSHD(t)
	tests := []struct {
		name, user, password string
		become               cluster.Become
		want                 error
	}{
		{"root needs none", "root", "", cluster.BecomeAuto, nil},
		{"without a password", free, "", cluster.BecomeAuto, nil},
		{"without a password, though one is known", free, loginPassword, cluster.BecomeAuto, nil},
		{"with a password", asked, loginPassword, cluster.BecomeAuto, nil},
		{"always", free, "", cluster.BecomeAlways, nil},
		{"a wrong password", asked, "wrong-password", cluster.BecomeAuto, ErrWrongSudoPassword},
		{"a password is missing", asked, "", cluster.BecomeAuto, ErrSudoPasswordNeeded},
		{"not allowed", denied, loginPassword, cluster.BecomeAuto, ErrNoSudo},
		{"not wanted", free, "", cluster.BecomeNever, ErrNotRoot},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			target := s.target(test.user)
			target.BecomePassword, target.Become = redact.New(test.password), test.become
			h := connect(t, dialer(t, nil, s), target)
			// What is piped in must arrive whole, with nothing of the password in it,
			// and the password must not be in any command line.
			payload := strings.Repeat("payload\n", 5000)
			r, err := h.Run(t.Context(), Command{Line: "id -un; cat; ps axww -o args= >&2", Stdin: strings.NewReader(payload), Root: true})
			if !errors.Is(err, test.want) {
				t.Fatalf("%v; want %v", err, test.want)
			}
			if err != nil {
				if test.password != "" && strings.Contains(err.Error(), test.password) {
					t.Errorf("the error has the password: %v", err)
				}
				return
			}
			if string(r.Stdout) != "root\n"+payload {
				t.Errorf("it read %d bytes: %.100q", len(r.Stdout), r.Stdout)
			}
			if test.password != "" && bytes.Contains(r.Stderr, []byte(test.password)) {
				t.Error("the password is in a command line")
			}
			// A second time: sudo's memory changes nothing.
			if r, err := h.Run(t.Context(), Command{Line: "cat", Stdin: strings.NewReader("x"), Root: true}); err != nil || string(r.Stdout) != "x" {
				t.Errorf("the second time: %q, %v", r.Stdout, err)
			}
		})
	}
}

func TestManyCommandsAndConnectionsAtOnceStayWithinSSHDsLimits(t *testing.T) {
	s := startSSHD(t, "MaxSessions 10", "MaxStartups 10:30:100")
	d := dialer(t, nil, s)
	h := connect(t, d, s.target("root"))
	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			if r, err := h.Run(t.Context(), Command{Line: fmt.Sprintf("sleep 0.05; echo %d", i)}); err != nil || string(r.Stdout) != fmt.Sprintf("%d\n", i) {
				t.Errorf("command %d: %q, %v", i, r.Stdout, err)
			}
		})
	}
	for range 40 {
		group.Go(func() {
			h, err := d.Connect(t.Context(), s.target("root"))
			if err != nil {
				t.Error(err)
				return
			}
			h.Close()
		})
	}
	group.Wait()
}

func TestJumpHostsOfAnyDepthAreShared(t *testing.T) {
	one, two, end := startSSHD(t), startSSHD(t), startSSHD(t)
	d := dialer(t, nil, one, two, end)
	target := end.target("root")
	target.Jumps = []string{"root@" + one.address(), "root@" + two.address()}
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			h, err := d.Connect(t.Context(), target)
			if err != nil {
				t.Error(err)
				return
			}
			if r, err := h.Run(t.Context(), Command{Line: "echo $SSH_CONNECTION"}); err != nil || !strings.Contains(string(r.Stdout), fmt.Sprint(end.port)) {
				t.Errorf("%q, %v", r.Stdout, err)
			}
			h.Close()
		})
	}
	group.Wait()
	if a, b, c := one.logged("Accepted publickey"), two.logged("Accepted publickey"), end.logged("Accepted publickey"); a != 1 || b != 1 || c != 12 {
		t.Errorf("logins: %d at the first jump host, %d at the second, %d at the end; want 1, 1, 12", a, b, c)
	}
	t.Run("an unknown key of a jump host", func(t *testing.T) {
		_, err := dialer(t, nil, one, end).Connect(t.Context(), target)
		if err == nil || !strings.Contains(err.Error(), "jump host root@"+two.address()) || !strings.Contains(err.Error(), "is not known") {
			t.Error(err)
		}
	})
	t.Run("a jump host that came back", func(t *testing.T) {
		d.mu.Lock()
		for c := range d.clients {
			c.Close()
		}
		d.mu.Unlock()
		connect(t, d, target)
	})
}

func TestTheAgentsKeysAreUsed(t *testing.T) {
	s := startSSHD(t)
	socket := filepath.Join(t.TempDir(), "agent")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	await(t, func() bool {
		_, err := os.Stat(socket)
		return err == nil
	})
	add := exec.Command("ssh-add", "-q", clientKey(t))
	add.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	if out, err := add.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	target := s.target("root")
	target.KeyFile = ""
	connect(t, dialer(t, func(o *Options) { o.AgentSocket = socket }, s), target)
	if _, err := dialer(t, func(o *Options) { o.AgentSocket = socket + "-none" }, s).Connect(t.Context(), target); err == nil || !strings.Contains(err.Error(), "ask the SSH agent") {
		t.Errorf("an agent that is not there: %v", err)
	}
}

func TestSSHConfigIsHonoured(t *testing.T) {
	jump, end := startSSHD(t), startSSHD(t)
	file := filepath.Join(t.TempDir(), "config")
	config := fmt.Sprintf("Host bastion\n  HostName 127.0.0.1\n  Port %d\n  User root\n  IdentityFile %s\n\nHost inner\n  HostName 127.0.0.1\n  Port %d\n  User root\n  IdentityFile %s\n  ProxyJump bastion\n", jump.port, clientKey(t), end.port, clientKey(t))
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	d := dialer(t, func(o *Options) { o.ConfigFile = file }, jump, end)
	connect(t, d, Target{Name: "n", Connection: cluster.Connection{Host: "inner"}})
	if jump.logged("Accepted publickey") != 1 {
		t.Error("the jump host was not used")
	}
}

func TestCancelledCommandsEndWithTheirChildren(t *testing.T) {
	s := startSSHD(t)
	for name, target := range map[string]Target{
		"as root":           s.target("root"),
		"by sudo":           s.target(free),
		"by sudo, asked":    func() Target { c := s.target(asked); c.BecomePassword = redact.New(loginPassword); return c }(),
		"here":              {Name: "me", Connection: cluster.Connection{Local: true}},
		"that are stubborn": s.target("root"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := connect(t, dialer(t, nil, s), target)
			file := filepath.Join(t.TempDir(), "pid")
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			trap := ""
			if name == "that are stubborn" {
				trap = "trap '' TERM; "
			}
			go func() {
				_, err := h.Run(ctx, Command{Line: trap + "sleep 1000 & echo $! >" + file + "; wait; sleep 1000", Root: true})
				ended <- err
			}()
			var pid []byte
			await(t, func() bool { pid, _ = os.ReadFile(file); return bytes.HasSuffix(pid, []byte("\n")) })
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("%v", err)
			}
			await(t, func() bool {
				status, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
				return err != nil || bytes.Contains(status, []byte(") Z "))
			})
		})
	}
}

func TestUploadsAreWholeOrNotThere(t *testing.T) {
	s := startSSHD(t)
	target := s.target(asked)
	target.BecomePassword = redact.New(loginPassword)
	h := connect(t, dialer(t, nil, s), target)
	directory := t.TempDir()
	path := filepath.Join(directory, "it's a file")
	content := make([]byte, 5<<20)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, err := h.Upload(t.Context(), File{Path: path, Mode: 0o640, Owner: "root:" + free, Root: true}, bytes.NewReader(content))
	if err != nil || len(sum) != 64 {
		t.Fatal(sum, err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if out := run(t, "stat", "-c", "%a %U %G", path); out != "640 root "+free+"\n" {
		t.Error(out)
	}
	var back bytes.Buffer
	if err := h.Download(t.Context(), path, true, &back); err != nil || !bytes.Equal(back.Bytes(), content) {
		t.Errorf("%d bytes come back, %v", back.Len(), err)
	}
	if err := h.Download(t.Context(), path+"-none", true, io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	for name, f := range map[string]File{
		"a directory that is not there": {Path: filepath.Join(directory, "none", "f"), Root: true},
		"a path that is a directory":    {Path: directory, Root: true},
		"a path that is not absolute":   {Path: "f", Root: true},
		"an owner that is nobody":       {Path: path, Owner: "nobody-at-all", Root: true},
		"an owner that is an option":    {Path: path, Owner: "--help", Root: true},
		"no permission":                 {Path: path},
	} {
		if _, err := h.Upload(t.Context(), f, strings.NewReader("new")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A content that changes between the two readings.
	if _, err := h.Upload(t.Context(), File{Path: path, Mode: 0o600, Root: true}, &fickle{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a content that changes: %v", err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, content) {
		t.Errorf("the file was touched by uploads that failed: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(directory, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// fickle reads differently each time.
type fickle struct{ times, at int }

func (f *fickle) Read(p []byte) (int, error) {
	if f.at > 0 {
		return 0, io.EOF
	}
	f.at++
	return copy(p, fmt.Sprint(f.times)), nil
}

func (f *fickle) Seek(int64, int) (int64, error) {
	f.times++
	f.at = 0
	return 0, nil
}

func TestRequestsGoThroughTheConnection(t *testing.T) {
	s := startSSHD(t)
	h := connect(t, dialer(t, nil, s), s.target("root"))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host+r.URL.Path) })
	socket := filepath.Join(t.TempDir(), "s")
	for _, kind := range []struct{ network, address string }{{"tcp", "127.0.0.1:0"}, {"unix", socket}} {
		l, err := net.Listen(kind.network, kind.address)
		if err != nil {
			t.Fatal(err)
		}
		server := &http.Server{Handler: handler}
		go func() { _ = server.Serve(l) }()
		t.Cleanup(func() { server.Close() })
		client := h.HTTPClient(kind.network, l.Addr().String())
		response, err := client.Get("http://component/v1/status")
		if err != nil {
			t.Errorf("%s: %v", kind.network, err)
			continue
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if string(body) != "component/v1/status" {
			t.Errorf("%s: %s", kind.network, body)
		}
		client.CloseIdleConnections()
	}
	if _, err := h.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t))); err == nil {
		t.Error("a port that nobody listens on")
	}
}

func TestKeyscanShowsAndTrustStores(t *testing.T) {
	s, other := startSSHD(t), startSSHD(t)
	file := filepath.Join(t.TempDir(), "known_hosts")
	d := dialer(t, func(o *Options) { o.KnownHosts = file })
	scan := func(want KeyStatus) []ScannedKey {
		t.Helper()
		keys, err := d.Keyscan(t.Context(), s.target("root"))
		if err != nil || len(keys) != 3 {
			t.Fatalf("%v, %v", keys, err)
		}
		for _, k := range keys {
			if want == KeyChanged && k.Type == "ssh-rsa" {
				continue // the servers of these tests share it
			}
			if k.Status != want || !strings.HasPrefix(k.Fingerprint, "SHA256:") {
				t.Errorf("%+v; want %s", k, want)
			}
		}
		return keys
	}
	keys := scan(KeyNew)
	if n, err := d.Trust(keys); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	if n, err := d.Trust(scan(KeyKnown)); err != nil || n != 0 {
		t.Error(n, err)
	}
	connect(t, d, s.target("root"))
	var b strings.Builder
	for _, kind := range allKinds {
		fmt.Fprintf(&b, "[127.0.0.1]:%d %s\n", s.port, other.keys[kind])
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Trust(scan(KeyChanged)); err != nil || n != 0 {
		t.Errorf("changed keys were stored: %d, %v", n, err)
	}
}

func TestHostsThatDoNotAnswerAreNamed(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	d := dialer(t, func(o *Options) { o.DialTimeout = 300 * time.Millisecond })
	target := Target{Name: "host-09", Connection: cluster.Connection{Host: "127.0.0.1", Port: silent.Addr().(*net.TCPAddr).Port, User: "root"}}
	if _, err := d.Connect(t.Context(), target); err == nil || !strings.Contains(err.Error(), "host-09") || !strings.Contains(err.Error(), "does not answer as an SSH server") {
		t.Errorf("silent: %v", err)
	}
	target.Port = freePort(t)
	if _, err := d.Connect(t.Context(), target); err == nil || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
}

func TestSecretsAreMaskedInErrorsAndLogs(t *testing.T) {
	s := startSSHD(t)
	mask := &redact.Mask{}
	mask.Add(redact.New("the-token"))
	log := &safeBuffer{}
	d := dialer(t, func(o *Options) { o.Mask = mask }, s)
	h := connect(t, d, s.target("root"))
	_, err := h.Run(t.Context(), Command{Line: "echo the-token >&2; false the-token"})
	if err == nil || strings.Contains(err.Error(), "the-token") || strings.Contains(log.String(), "the-token") {
		t.Errorf("%v", err)
	}
}
