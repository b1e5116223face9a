package sections_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/watch/sections"
)

func TestOnlyWhatChangedIsEncodedAndTheFileIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := sections.New(path, renameio.WithPermissions(0o600))
	a, b, long := "a", "b", strings.Repeat("long", 1<<16)
	empty := ""
	write := func(parts ...*string) (encoded []string, err error) {
		return encoded, f.Write(func(w *sections.Writer) error {
			w.Text([]byte("<"))
			for _, part := range parts {
				if err := w.Section(part, func() ([]byte, error) {
					encoded = append(encoded, (*part)[:min(1, len(*part))])
					return []byte(*part), nil
				}); err != nil {
					return err
				}
				w.Text([]byte("|"))
			}
			w.Text([]byte(">"))
			return nil
		})
	}
	for _, step := range []struct {
		parts   []*string
		encoded []string
		before  func()
	}{
		{parts: nil},
		{parts: []*string{&a, &b}, encoded: []string{"a", "b"}},
		{parts: []*string{&a, &b}},
		{parts: []*string{&b, &long, &a}, encoded: []string{"l"}},
		{parts: []*string{&a, &long, &b}},
		{parts: []*string{&long}},
		{parts: []*string{&long, &a, &empty}, encoded: []string{"a", ""}},
		{
			// What somebody else wrote is not copied from.
			parts: []*string{&long, &a}, encoded: []string{"l", "a"},
			before: func() {
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(strings.ToUpper(string(text))), 0o600); err != nil {
					t.Fatal(err)
				}
			},
		},
		{parts: []*string{&a}, encoded: []string{"a"}, before: func() { _ = os.Remove(path) }},
		{parts: []*string{&a}},
	} {
		if step.before != nil {
			step.before()
		}
		encoded, err := write(step.parts...)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(encoded, step.encoded) {
			t.Errorf("encoded were %q; want %q", encoded, step.encoded)
		}
		want := "<"
		for _, part := range step.parts {
			want += *part + "|"
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want+">", string(got)); diff != "" {
			t.Fatalf("wanted (-), written (+):\n%s", diff)
		}
	}
}

func TestAFileThatCannotBeWrittenStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	f := sections.New(path, renameio.WithPermissions(0o600))
	key := new(int)
	good := func(w *sections.Writer) error {
		return w.Section(key, func() ([]byte, error) { return []byte("good"), nil })
	}
	bad := errors.New("no JSON")
	for range 2 {
		if err := f.Write(good); err != nil {
			t.Fatal(err)
		}
		if err := f.Write(func(w *sections.Writer) error {
			w.Text([]byte("half"))
			return w.Section(new(int), func() ([]byte, error) { return nil, bad })
		}); !errors.Is(err, bad) {
			t.Errorf("error %v", err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "good" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
