package consul

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
)

// snapshotOf is an archive as Consul makes it.
func snapshotOf(t testing.TB, files map[string]string, sums string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	add := func(name, text string) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(text))}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, text)
	}
	for name, text := range files {
		add(name, text)
	}
	add("SHA256SUMS", sums)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestASnapshotIsWholeOrNone(t *testing.T) {
	files := map[string]string{"meta.json": "{}", "state.bin": strings.Repeat("state", 10000)}
	sum := func(name string) string { return fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(files[name])), name) }
	good := snapshotOf(t, files, sum("meta.json")+sum("state.bin"))
	var copied bytes.Buffer
	if err := copySnapshot(&copied, bytes.NewReader(good)); err != nil || !bytes.Equal(copied.Bytes(), good) {
		t.Errorf("%v, %d bytes of %d", err, copied.Len(), len(good))
	}
	for name, data := range map[string][]byte{
		"nothing":            nil,
		"an answer in words": []byte("Permission denied"),
		"half":               good[:len(good)/2],
		"all but the end":    good[:len(good)-1],
		"no checksums":       snapshotOf(t, files, ""),
		"one checksum":       snapshotOf(t, files, sum("state.bin")),
		"another state":      snapshotOf(t, files, sum("meta.json")+strings.Replace(sum("meta.json"), "meta.json", "state.bin", 1)),
		"no state":           snapshotOf(t, map[string]string{"meta.json": "{}"}, sum("meta.json")),
	} {
		if err := copySnapshot(&bytes.Buffer{}, bytes.NewReader(data)); err == nil {
			t.Errorf("%s is a snapshot", name)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	files := map[string]string{"meta.json": "{}", "state.bin": "state"}
	f.Add(snapshotOf(f, files, fmt.Sprintf("%x  meta.json\n%x  state.bin\n", sha256.Sum256([]byte("{}")), sha256.Sum256([]byte("state")))))
	f.Fuzz(func(t *testing.T, data []byte) {
		var copied bytes.Buffer
		if copySnapshot(&copied, bytes.NewReader(data)) == nil && !bytes.Equal(copied.Bytes(), data) {
			t.Error("it is not what was read")
		}
	})
}
