package platform_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/platform"
)

var update = flag.Bool("update", false, "write the tables of variables into docs/inventory.md")

const (
	referenceFile  = "../../docs/inventory.md"
	referenceBegin = "<!-- variables: written by go test ./provision/platform -run Reference -update -->\n"
	referenceEnd   = "<!-- end of variables -->\n"
)

// TestReferenceListsEveryVariable keeps the reference true.
func TestReferenceListsEveryVariable(t *testing.T) {
	data, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(data), referenceBegin)
	got, after, ok2 := strings.Cut(rest, referenceEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no marked place for the variables", referenceFile)
	}
	want := reference()
	if *update {
		if err := os.WriteFile(referenceFile, []byte(before+referenceBegin+want+referenceEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s is not up to date; run the test with -update (-want +got):\n%s", referenceFile, diff)
	}
}

// TestNoTwoComponentsReadOneVariableDifferently looks for variables with two
// meanings, of which the reference could tell only one.
func TestNoTwoComponentsReadOneVariableDifferently(t *testing.T) {
	known := map[string]cluster.VariableDoc{}
	owner := map[string]string{}
	for _, s := range sections() {
		for _, v := range s.variables {
			for _, name := range append([]string{v.Name}, v.Also...) {
				if other, ok := known[name]; ok && other.Doc != v.Doc {
					t.Errorf("%s is %q for %s and %q for %s", name, v.Doc, s.title, other.Doc, owner[name])
				}
				known[name], owner[name] = v, s.title
			}
		}
	}
}

// read is how components read a variable by its name.
var read = regexp.MustCompile(`\b(?:r|vars\.For\([^)]*\))\.(?:Addresses|Bool|Duration|Int|Lines|List|Map|Matching|Object|OneOf|Path|Port|Set|Text)\(\s*"([a-z0-9_]+)"`)

// TestComponentsReadNoVariableThatIsNotListed looks at what they read in their source.
func TestComponentsReadNoVariableThatIsNotListed(t *testing.T) {
	listed := map[string]bool{}
	for _, s := range sections() {
		for _, v := range s.variables {
			listed[v.Name] = true
			for _, name := range v.Also {
				listed[name] = true
			}
		}
	}
	found := 0
	err := filepath.WalkDir("../component", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, match := range read.FindAllStringSubmatch(string(source), -1) {
			found++
			if !listed[match[1]] {
				t.Errorf("%s reads %s, and no component lists it", path, match[1])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 50 {
		t.Errorf("%d reads of variables were found; does the pattern still fit how components read?", found)
	}
}

type section struct {
	title     string
	variables []cluster.VariableDoc
}

// sections are all variables, each in the first section that has it.
func sections() []section {
	all := []section{{"the platform", nil}, {"where programs come from", nil}}
	seen := map[string]bool{}
	for _, v := range cluster.Variables() {
		i := 0
		for _, c := range cluster.Components() {
			for _, kind := range []string{"version", "source", "package", "url", "sha256", "file", "image"} {
				if v.Name == string(c)+"_"+kind {
					i = 1
				}
			}
		}
		seen[v.Name] = true
		all[i].variables = append(all[i].variables, v)
	}
	for _, c := range platform.Components() {
		s := section{title: c.Name()}
		for _, v := range c.Variables() {
			if !seen[v.Name] {
				seen[v.Name] = true
				s.variables = append(s.variables, v)
			}
		}
		if len(s.variables) > 0 {
			all = append(all, s)
		}
	}
	return all
}

func reference() string {
	var b strings.Builder
	for _, s := range sections() {
		fmt.Fprintf(&b, "### %s\n\n| variable | meaning |\n|---|---|\n", strings.ToUpper(s.title[:1])+s.title[1:])
		for _, v := range s.variables {
			name := "`" + v.Name + "`"
			if len(v.Also) > 0 {
				name += " (`" + strings.Join(v.Also, "`, `") + "`)"
			}
			fmt.Fprintf(&b, "| %s | %s |\n", name, strings.ReplaceAll(v.Doc, "|", "\\|"))
		}
		b.WriteString("\n")
	}
	return b.String()
}
