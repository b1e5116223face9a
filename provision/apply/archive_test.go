package apply

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

type archived struct{ name, text, link string }

func tarOf(t testing.TB, files ...archived) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.text)), Typeflag: tar.TypeReg}
		if f.link != "" {
			h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func write(t testing.TB, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "archive")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestAMemberIsFoundByPathOrByItsOnlyName(t *testing.T) {
	file := write(t, tarOf(t, archived{"x/bin/consul", "1", ""}, archived{"x/doc/consul", "2", ""}, archived{"x/README", "3", ""}))
	for name, want := range map[string]string{"x/bin/consul": "1", "x/doc/consul": "2", "README": "3"} {
		if got, err := member(file, name); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := member(file, "consul"); err == nil || !strings.Contains(err.Error(), "2 files named consul") {
		t.Errorf("%v", err)
	}
	if _, err := member(file, "nomad"); err == nil || !strings.Contains(err.Error(), "has no nomad") {
		t.Errorf("%v", err)
	}
}

func TestXZIsUnpacked(t *testing.T) {
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(tarOf(t, archived{"a/b", "content", ""})); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := member(write(t, b.Bytes()), "b"); err != nil || string(got) != "content" {
		t.Errorf("%q, %v", got, err)
	}
}

func names(t *testing.T, file string) ([]string, error) {
	t.Helper()
	var b bytes.Buffer
	if err := repack(file, &b); err != nil {
		return nil, err
	}
	var all []string
	r := tar.NewReader(&b)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s belongs to %d:%d", h.Name, h.Uid, h.Gid)
		}
		all = append(all, h.Name)
	}
}

func TestTheOnlyDirectoryAtTheTopIsLeftOut(t *testing.T) {
	got, err := names(t, write(t, tarOf(t, archived{"zk-3.8/bin/run", "", ""}, archived{"zk-3.8/lib/x", "", ""})))
	if err != nil || !slices.Equal(got, []string{"bin/run", "lib/x"}) {
		t.Errorf("%q, %v", got, err)
	}
	got, err = names(t, write(t, tarOf(t, archived{"bin/run", "", ""}, archived{"README", "", ""})))
	if err != nil || !slices.Equal(got, []string{"bin/run", "README"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestNothingLeadsOutOfAnArchive(t *testing.T) {
	for _, f := range []archived{{"../evil", "", ""}, {"/etc/passwd", "", ""}, {"a/../../evil", "", ""}, {"a/link", "", "../../etc"}, {"link", "", "/etc"}} {
		got, err := names(t, write(t, tarOf(t, archived{"b/x", "", ""}, f)))
		if !errors.Is(err, errUnsafe) {
			t.Errorf("%+v: %q, %v", f, got, err)
		}
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := z.Create(`..\evil`); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := names(t, write(t, b.Bytes())); !errors.Is(err, errUnsafe) {
		t.Errorf("%q, %v", got, err)
	}
}

func FuzzArchive(f *testing.F) {
	f.Add(tarOf(f, archived{"a/b", "x", ""}, archived{"a/l", "", "b"}))
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("a/b")
	if err != nil {
		f.Fatal(err)
	}
	if _, err := io.WriteString(w, "x"); err != nil {
		f.Fatal(err)
	}
	if err := z.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	file := filepath.Join(f.TempDir(), "archive")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		if repack(file, &out) != nil {
			return
		}
		r := tar.NewReader(&out)
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Fatalf("what was packed again cannot be read: %v", err)
			}
			if !filepath.IsLocal(strings.TrimSuffix(h.Name, "/")) {
				t.Fatalf("%q leads out", h.Name)
			}
		}
	})
}

func TestTheJournalSaysWhereARunWasCutOff(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deeper", "journal")
	if cut, err := LastCutOff(path); cut != nil || err != nil {
		t.Fatalf("%v %v", cut, err)
	}
	begin := func() *Journal {
		j, err := OpenJournal(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Begin(Owner{Who: "me@here"}); err != nil {
			t.Fatal(err)
		}
		for _, e := range []Event{
			{Component: "base", Node: "a", State: Working, Step: "writes /etc/x"}, {Component: "base", Node: "a", State: Done},
			{Component: "consul", Node: "a", State: Working, Step: "starts consul.service"}, {Component: "consul", Node: "a", State: Waiting, Step: "healthy"},
		} {
			if err := j.Event(e); err != nil {
				t.Fatal(err)
			}
		}
		return j
	}
	begin()
	cut, err := LastCutOff(path)
	if err != nil || cut == nil || cut.Owner.Who != "me@here" || !slices.Equal(cut.Doing, []string{"consul on a: starts consul.service"}) {
		t.Errorf("%+v %v", cut, err)
	}
	// The next one does not look at what the last one was at, but ends.
	if err := begin().End(true); err != nil {
		t.Fatal(err)
	}
	if cut, err := LastCutOff(path); cut != nil || err != nil {
		t.Errorf("%+v %v", cut, err)
	}
}
