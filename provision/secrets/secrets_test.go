package secrets

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

var now = time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)

func platform(names ...string) *cluster.Cluster {
	d := &cluster.Datacenter{Name: "dc1"}
	for i, name := range names {
		d.Nodes = append(d.Nodes, &cluster.Node{Name: name, Datacenter: "dc1", Roles: []cluster.Role{cluster.ConsulServer}, Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})})
	}
	return &cluster.Cluster{Datacenters: []*cluster.Datacenter{d}}
}

func ensured(t *testing.T, names ...string) *Bundle {
	t.Helper()
	b := New()
	if _, err := b.Ensure(platform(names...), now); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOnlyWhatIsMissingIsAdded(t *testing.T) {
	b := New()
	first, err := b.Ensure(platform("a", "b"), now)
	if err != nil || len(first) == 0 {
		t.Fatalf("%v, %v", first, err)
	}
	before := map[string]string{}
	for _, name := range b.Names() {
		before[name] = b.Get(name).Reveal()
	}
	if again, err := b.Ensure(platform("a", "b"), now.Add(time.Hour)); err != nil || len(again) != 0 {
		t.Errorf("the second time: %v, %v", again, err)
	}
	more, err := b.Ensure(platform("a", "b", "c"), now)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range more {
		if !strings.Contains(change.Name, "/c/") {
			t.Errorf("a new node changes %s: %s", change.Name, change.Why)
		}
	}
	for name, value := range before {
		if b.Get(name).Reveal() != value {
			t.Errorf("%s was generated anew", name)
		}
	}
}

func TestSecretsKeepToWhatProgramsTake(t *testing.T) {
	b := ensured(t, "a")
	for pattern, values := range map[string][]string{
		`^[A-Za-z0-9]{32}$`: {
			b.ZooKeeper("dc1", ZooKeeperSuper).Password.Reveal(), b.ZooKeeper("dc1", ZooKeeperMesos).Password.Reveal(),
			b.Mesos("dc1", MesosAgent).Password.Reveal(), b.Marathon("dc1").Password.Reveal(),
		},
		`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`: {
			b.ConsulToken(ManagementPurpose).Secret.Reveal(), b.ConsulToken(AgentPurpose("a")).Accessor,
		},
		`^[A-Za-z0-9+/]{43}=$`: {b.GossipKey().Reveal()},
	} {
		for _, value := range values {
			if !regexp.MustCompile(pattern).MatchString(value) {
				t.Errorf("%q is not %s", value, pattern)
			}
		}
	}
	for name, value := range map[string]string{
		"zookeeper/dc1/mesos": "p@ss", "mesos/dc1/agent": "a/b", "marathon/dc1/mi-lb": "a:b", gossipKey: "short", "consul/x": "",
	} {
		if err := b.Set(name, redact.New(value)); err == nil {
			t.Errorf("%s = %q was accepted", name, value)
		} else if value != "" && strings.Contains(err.Error(), value) {
			t.Errorf("the error shows the value: %v", err)
		}
	}
}

// What ZooKeeper's own DigestAuthenticationProvider prints for super:super.
func TestDigestsAreZooKeepers(t *testing.T) {
	if got := (Login{"super", redact.New("super")}).Digest(); got != "super:gG7s8t3oDEtIqF6DM9LlI/R+9Ss=" {
		t.Error(got)
	}
}

func TestBundlesAreNeverPrinted(t *testing.T) {
	b := ensured(t, "a")
	encoded, err := json.Marshal(b)
	if err != nil {
		t.Fatal(err)
	}
	printed := fmt.Sprintf("%v %+v %#v %s %v %+v", b, b, b, encoded, b.Mesos("dc1", MesosAgent), b.ConsulToken(EdgePurpose))
	for _, name := range b.Names() {
		if name == issuerName || strings.HasSuffix(name, "/accessor") {
			continue
		}
		if strings.Contains(printed, b.Get(name).Reveal()) {
			t.Errorf("printing shows %s", name)
		}
	}
}

func TestBundlesAreStoredAndReadAgain(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	keyFile := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(keyFile, []byte("# created: today\n"+identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	byKey, err := IdentityFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	byPassphrase := Passphrase(redact.New("correct horse"))
	byPassphrase.workFactor = 5
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name        string
		lock, wrong Lock
		wrongError  error
	}{
		{"plain", Lock{}, byPassphrase, ErrNotEncrypted},
		{"by passphrase", byPassphrase, Passphrase(redact.New("wrong")), ErrWrongKey},
		{"by key", byKey, Lock{identities: []age.Identity{other}}, ErrWrongKey},
		{"by key, without it", byKey, Lock{}, ErrLocked},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := ensured(t, "a")
			path := filepath.Join(t.TempDir(), "deeper", "secrets")
			if _, err := Load(path, test.lock); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("before there is one: %v", err)
			}
			if err := b.Save(path, test.lock); err != nil {
				t.Fatal(err)
			}
			read, err := Load(path, test.lock)
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range b.Names() {
				if !read.Get(name).Equal(b.Get(name)) {
					t.Errorf("%s has changed", name)
				}
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if encrypted := !strings.Contains(string(data), b.GossipKey().Reveal()); encrypted == test.lock.isOpen() {
				t.Errorf("encrypted: %v", encrypted)
			}
			if status, err := os.Stat(path); err != nil || status.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", status.Mode(), err)
			}
			if _, err := Load(path, test.wrong); !errors.Is(err, test.wrongError) {
				t.Errorf("the wrong key: %v; want %v", err, test.wrongError)
			}
			if !test.lock.isOpen() {
				if err := b.Save(path, Lock{}); !errors.Is(err, ErrLocked) {
					t.Errorf("an encrypted bundle was replaced by a plain one: %v", err)
				}
			}
			if err := os.WriteFile(path, data[:len(data)/2], 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path, test.lock); err == nil || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("half a file: %v", err)
			}
		})
	}
}

func TestPlainBundlesThatOthersCanReadAreRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "secrets")
	if err := ensured(t, "a").Save(path, Lock{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, Lock{}); !errors.Is(err, ErrReadable) {
		t.Errorf("%v", err)
	}
}

func TestTheAuthorityChangesInThreeSteps(t *testing.T) {
	c := platform("a")
	b := ensured(t, "a")
	old := b.NodePair("a").Certificate
	step := func(want Rotation, authorities int, renewed bool) {
		t.Helper()
		got, err := b.AdvanceRotation(now)
		if err != nil || got != want {
			t.Fatalf("%s, %v; want %s", got, err, want)
		}
		if n := strings.Count(b.TrustedCertificates(), "BEGIN CERTIFICATE"); n != authorities {
			t.Errorf("%s: %d authorities are trusted", want, n)
		}
		if _, err := b.Ensure(c, now); err != nil {
			t.Fatal(err)
		}
		if (b.NodePair("a").Certificate != old) != renewed {
			t.Errorf("%s: renewed is %v", want, !renewed)
		}
	}
	step(RotationTrusting, 2, false)
	step(RotationSigning, 2, true)
	step(NoRotation, 1, true)
	if changes, err := b.Ensure(c, now); err != nil || len(changes) != 0 {
		t.Errorf("afterwards: %v, %v", changes, err)
	}
}
