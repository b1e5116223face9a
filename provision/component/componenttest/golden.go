package componenttest

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

var update = flag.Bool("update", false, "write the golden files")

// Golden compares a text with a golden file, or writes it with -update.
func Golden(t testing.TB, file, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with -update", err)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got, "\n")); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", file, d)
	}
}

// Render is a part as text, for golden files: everything that it has, in order, with
// secrets replaced by their names, which makes it the same for every bundle.
func Render(p component.Platform, part *desired.Part) string {
	var b strings.Builder
	fmt.Fprintf(&b, "component %s\n", part.Component)
	for _, r := range part.Repositories {
		b.WriteString("\nrepository\n")
		for _, f := range r.Files {
			renderFile(&b, f)
		}
	}
	for _, x := range part.Packages {
		fmt.Fprintf(&b, "\npackage %s\n", compact(x))
	}
	for _, x := range part.Users {
		fmt.Fprintf(&b, "\nuser %s\n", compact(x))
	}
	for _, x := range part.Directories {
		fmt.Fprintf(&b, "\ndirectory %s %04o %s\n", x.Path, x.Mode, x.Owner)
	}
	for _, x := range part.Programs {
		fmt.Fprintf(&b, "\nprogram %s\n", compact(x))
	}
	for _, x := range part.Files {
		b.WriteString("\n")
		renderFile(&b, x)
	}
	for _, u := range part.Units {
		fmt.Fprintf(&b, "\nunit %s %s", u.Name, u.State)
		if u.NoBlock {
			b.WriteString(" no-block")
		}
		if u.Quorum {
			b.WriteString(" quorum")
		}
		b.WriteString("\n")
		writeText(&b, u.Content)
		for _, name := range slices.Sorted(maps.Keys(u.DropIns)) {
			fmt.Fprintf(&b, "drop-in %s\n", name)
			writeText(&b, u.DropIns[name])
		}
	}
	return Named(p.Secrets, b.String())
}

func renderFile(b *strings.Builder, f desired.File) {
	fmt.Fprintf(b, "file %s %04o %s", f.Path, f.Mode, f.Owner)
	for _, x := range []struct {
		on   bool
		text string
	}{
		{!f.Secret.IsEmpty(), "secret"}, {f.Once, "once"}, {f.OnlyWith != "", "only-with=" + f.OnlyWith}, {f.Same != nil, "compared"},
		{len(f.Restarts) > 0, "restarts=" + strings.Join(f.Restarts, ",")}, {len(f.Reloads) > 0, "reloads=" + strings.Join(f.Reloads, ",")},
		{f.Check != "", "check=" + fmt.Sprintf("%q", f.Check)}, {f.Then != "", "then=" + fmt.Sprintf("%q", f.Then)},
	} {
		if x.on {
			b.WriteString(" " + x.text)
		}
	}
	b.WriteString("\n")
	writeText(b, f.Bytes())
}

// writeText indents a text; its end says whether there is a last newline.
func writeText(b *strings.Builder, text string) {
	if text == "" {
		return
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		b.WriteString(strings.TrimRight("    "+line, " ") + "\n")
	}
	if !strings.HasSuffix(text, "\n") {
		b.WriteString("    (no newline at the end)\n")
	}
}

func compact(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// Named is a text with the bundle's secrets replaced by their names in angle
// brackets, and so are ZooKeeper's digests of them.
func Named(b *secrets.Bundle, text string) string {
	type replacement struct{ value, name string }
	var all []replacement
	for _, name := range b.Names() {
		value := b.Get(name).Reveal()
		if len(value) < 8 {
			continue
		}
		// PEM is indented where it is printed.
		for _, v := range []string{value, strings.ReplaceAll(strings.TrimSuffix(value, "\n"), "\n", "\n    ")} {
			all = append(all, replacement{v, "<" + name + ">"})
		}
		if rest, ok := strings.CutPrefix(name, "zookeeper/"); ok {
			datacenter, user, _ := strings.Cut(rest, "/")
			_, digest, _ := strings.Cut(b.ZooKeeper(datacenter, user).Digest(), ":")
			all = append(all, replacement{digest, "<digest of " + name + ">"})
		}
	}
	// Longer ones first: one may contain another.
	slices.SortStableFunc(all, func(a, b replacement) int { return len(b.value) - len(a.value) })
	for _, r := range all {
		text = strings.ReplaceAll(text, r.value, r.name)
	}
	return text
}
