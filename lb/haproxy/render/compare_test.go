package render

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// Each archive of testdata/compare has files as old/NAME and new/NAME, and in the
// file "change" what is to be done.
func TestCompareFindsTheLeastChange(t *testing.T) {
	paths, err := filepath.Glob("testdata/compare/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			old, new, want := Files{}, Files{}, ""
			for _, f := range archive.Files {
				switch dir, name := filepath.Split(f.Name); dir {
				case "old/":
					old[name] = f.Data
				case "new/":
					new[name] = f.Data
				default:
					want = string(f.Data)
				}
			}
			if got := describe(Compare(old, new)); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
			if c := Compare(new, new); c.Files != nil || c.Reload != "" {
				t.Errorf("the same files differ: %+v", c)
			}
		})
	}
}

func describe(c Change) string {
	var b strings.Builder
	if c.Reload != "" {
		fmt.Fprintf(&b, "reload: %s\n", c.Reload)
	}
	for _, s := range c.Servers {
		switch {
		case s.Add != "":
			fmt.Fprintf(&b, "add %s: weight %d maxconn %d disabled %v check %v\n", s.Add, s.Is.Weight, s.Is.MaxConn, s.Is.Disabled, s.Is.Check)
		case s.Remove:
			fmt.Fprintf(&b, "remove %s/%s\n", s.Backend, s.Server)
		default:
			fmt.Fprintf(&b, "set %s/%s:", s.Backend, s.Server)
			if s.Was.Address != s.Is.Address {
				fmt.Fprintf(&b, " address %s", s.Is.Address)
			}
			if s.Was.Weight != s.Is.Weight {
				fmt.Fprintf(&b, " weight %d", s.Is.Weight)
			}
			if s.Was.MaxConn != s.Is.MaxConn {
				fmt.Fprintf(&b, " maxconn %d", s.Is.MaxConn)
			}
			if s.Was.Disabled != s.Is.Disabled {
				fmt.Fprintf(&b, " disabled %v", s.Is.Disabled)
			}
			b.WriteByte('\n')
		}
	}
	for _, m := range c.Maps {
		for _, row := range m.Set {
			fmt.Fprintf(&b, "map %s: %s=%s\n", m.File, row.Key, row.Value)
		}
		for _, key := range m.Delete {
			fmt.Fprintf(&b, "map %s: delete %s\n", m.File, key)
		}
	}
	fmt.Fprintf(&b, "files: %s\n", strings.Join(c.Files, " "))
	return b.String()
}

func FuzzCompare(f *testing.F) {
	f.Add("backend b\n  server a 1.2.3.4:80\n", "backend b\n  server a 1.2.3.4:81 weight 2 disabled\n  server b ::1:80\n", "a b\n", "a c\nb\n")
	f.Add("defaults\n default-server check\n.if x\nbackend b\n", ".\n.endif\nserver\nlisten\n server\n server a\n server a 'b", "", "#\n x")
	f.Fuzz(func(t *testing.T, oldConfig, newConfig, oldMap, newMap string) {
		old := Files{ConfigFile: []byte(oldConfig), "m.map": []byte(oldMap)}
		new := Files{ConfigFile: []byte(newConfig), "m.map": []byte(newMap)}
		c := Compare(old, new)
		if c.Reload != "" && (c.Servers != nil || c.Maps != nil) {
			t.Errorf("a reload and something else: %+v", c)
		}
		for _, s := range c.Servers {
			if strings.ContainsAny(s.Add, "\n\r") {
				t.Errorf("a command of two lines: %q", s.Add)
			}
		}
	})
}

func TestLintNamesSectionsServersAndUnknownLines(t *testing.T) {
	sections, err := Lint([]byte(`global
    maxconn 10
defaults
    mode http
frontend f
    bind :80
    frobnicate yes
backend web
    server a 10.0.0.1:80 check weight 5
    server b 10.0.0.2:80 nonsense
`))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range sections {
		fmt.Fprintf(&got, "%s %q", s.Kind, s.Name)
		for _, server := range s.Servers {
			fmt.Fprintf(&got, " %s=%s", server.Name, server.Address)
		}
		for _, line := range s.Unknown {
			fmt.Fprintf(&got, " unknown %d %q", line.Number, line.Text)
		}
		got.WriteByte('\n')
	}
	want := `global ""
defaults ""
frontend "f" unknown 7 "frobnicate yes"
backend "web" a=10.0.0.1:80 b=10.0.0.2:80
`
	if got.String() != want {
		t.Errorf("got:\n%swant:\n%s", &got, want)
	}
	if _, err := Lint([]byte("global\n    log " + strings.Repeat("x", maxLine))); err == nil {
		t.Error("a line that the parser cannot read is no error")
	}
}

func TestLintReadsWhatIsRendered(t *testing.T) {
	files, err := newRenderer(t).Render(t.Context(), everything(), Settings{Dir: goldenDir, HTTP: []string{":80"}, HTTPS: []string{":443"}, Certificates: "/c"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sections, err := Lint(files[ConfigFile])
	if err != nil {
		t.Fatal(err)
	}
	servers := 0
	for _, s := range sections {
		servers += len(s.Servers)
		for _, line := range s.Unknown {
			t.Logf("%s %s: the parser does not know %q", s.Kind, s.Name, line.Text)
		}
	}
	want := 1 + 3 // of mi-lb:decrypt; of mi-lb:next-worker
	for _, b := range everything().Backends {
		want += len(b.Servers)
	}
	if servers != want {
		t.Errorf("%d servers are read, want %d", servers, want)
	}
}
