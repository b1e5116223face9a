package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/mi-lb/mi-lb/provision/secrets"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestTheLastFewOfAKindAreKept(t *testing.T) {
	s := Store{Dir: filepath.Join(t.TempDir(), "backups"), Keep: 2}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	if _, err := s.Put("consul-dc1-b", at, text("of a datacenter whose name begins in the same way")); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		path, err := s.Put("consul-dc1", at.Add(time.Duration(i)*time.Hour), text(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		status, err := os.Stat(path)
		if err != nil || status.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", status, err)
		}
	}
	want := []string{"consul-dc1-20260102T050405Z.snap", "consul-dc1-20260102T060405Z.snap", "consul-dc1-b-20260102T030405Z.snap"}
	if got := names(t, s.Dir); !slices.Equal(got, want) {
		t.Errorf("kept: %v", got)
	}
}

func TestNothingIsLeftOfWhatIsNotComplete(t *testing.T) {
	s := Store{Dir: t.TempDir()}
	broken := errors.New("it broke")
	_, err := s.Put("consul-dc1", time.Now(), func(w io.Writer) error {
		fmt.Fprint(w, "half")
		return broken
	})
	if !errors.Is(err, broken) {
		t.Error(err)
	}
	if got := names(t, s.Dir); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func TestBackupsAreEncryptedAsTheSecretsAre(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	lock, err := secrets.IdentityFile(key)
	if err != nil {
		t.Fatal(err)
	}
	path, err := Store{Dir: t.TempDir(), Lock: lock}.Put("consul-dc1", time.Now(), text("with a secret"))
	if err != nil || filepath.Ext(path) != ".age" {
		t.Fatalf("%s, %v", path, err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	plain, err := age.Decrypt(file, identity)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(plain); string(got) != "with a secret" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}
