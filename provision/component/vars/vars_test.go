package vars_test

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/inventory"
)

const hosts = `all:
  hosts:
    a:
      text: hello
      number: 17
      numeral: "18"
      yes_text: "yes"
      truth: false
      wait: 90s
      seconds: 5
      list: [x, 2]
      commas: x, y
      mapping: {k: v, n: 1}
      addresses: [10.0.0.1, "::1"]
      lines: "a\nb"
      nothing:
      path: /srv/data/
      template: "{{ missing }}"
      dots: /srv/../etc
      quoted: /srv/a b
      nested: {a: {b: [1, true]}}
`

func reader(t *testing.T) *vars.Reader {
	t.Helper()
	file := filepath.Join(t.TempDir(), "hosts.yml")
	if err := os.WriteFile(file, []byte(hosts), 0o600); err != nil {
		t.Fatal(err)
	}
	inv, err := inventory.Load(context.Background(), inventory.Options{Sources: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	h, _ := inv.Host("a")
	return vars.For("base", &cluster.Node{Name: "a", Host: h})
}

func TestValuesAreReadAsTheirType(t *testing.T) {
	r := reader(t)
	for name, c := range map[string]struct{ got, want any }{
		"text":              {r.Text("text", "x"), "hello"},
		"text by default":   {r.Text("absent", "x"), "x"},
		"null is not set":   {r.Text("nothing", "x"), "x"},
		"number":            {r.Int("number", 1, 0, 100), 17},
		"number as string":  {r.Int("numeral", 1, 0, 100), 18},
		"bool":              {r.Bool("truth", true), false},
		"bool as Ansible's": {r.Bool("yes_text", false), true},
		"duration":          {r.Duration("wait", 0), 90 * time.Second},
		"duration, bare":    {r.Duration("seconds", 0), 5 * time.Second},
		"list":              {r.List("list", nil), []string{"x", "2"}},
		"list with commas":  {r.List("commas", nil), []string{"x", "y"}},
		"mapping":           {r.Map("mapping"), map[string]string{"k": "v", "n": "1"}},
		"addresses":         {r.Addresses("addresses", nil)[0], netip.MustParseAddr("10.0.0.1")},
		"path":              {r.Path("path", "/x"), "/srv/data"},
		"object":            {r.Object("nested"), map[string]any{"a": map[string]any{"b": []any{int64(1), true}}}},
		"set":               {r.Set("text"), true},
		"lines":             {r.Lines("lines"), "a\nb\n"},
		"not set":           {r.Set("nothing"), false},
	} {
		if d := cmp.Diff(c.want, c.got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
	if p := r.Problems(); len(p) != 0 {
		t.Errorf("problems: %+v", p)
	}
}

func TestWhatCannotBeUsedIsAProblemWithItsPlace(t *testing.T) {
	for name, read := range map[string]func(*vars.Reader){
		":4: text must be a whole number":                   func(r *vars.Reader) { r.Int("text", 1, 0, 9) },
		":5: number is 17, and must be 0 to 9":              func(r *vars.Reader) { r.Int("number", 1, 0, 9) },
		":4: text must be true or false":                    func(r *vars.Reader) { r.Bool("text", true) },
		":4: text must be a time such as":                   func(r *vars.Reader) { r.Duration("text", 0) },
		":11: list must be a single value":                  func(r *vars.Reader) { r.Text("list", "") },
		":15: lines must be on one line":                    func(r *vars.Reader) { r.Text("lines", "") },
		":18: template cannot be told":                      func(r *vars.Reader) { r.Text("template", "") },
		":19: dots is \"/srv/../etc\", which is not":        func(r *vars.Reader) { r.Path("dots", "/") },
		":20: quoted is \"/srv/a b\", which is not":         func(r *vars.Reader) { r.Path("quoted", "/") },
		":4: text is \"hello\", which is none of a, b":      func(r *vars.Reader) { r.OneOf("text", "a", "a", "b") },
		":11: list has \"x\", which is not an IP address":   func(r *vars.Reader) { r.Addresses("list", nil) },
		":4: text must be a mapping":                        func(r *vars.Reader) { r.Map("text") },
		":21: nested must have a single value on one line":  func(r *vars.Reader) { r.Map("nested") },
		":11: list must be a mapping, without encrypted va": func(r *vars.Reader) { r.Object("list") },
		"absent is too small":                               func(r *vars.Reader) { r.Refuse("absent", "is too small") },
	} {
		r := reader(t)
		read(r)
		p := r.Problems()
		if len(p) != 1 || !strings.Contains(p[0].Message, name) || !p[0].Fatal || p[0].Node != "a" || p[0].Component != "base" || p[0].Advice == "" {
			t.Errorf("want %q, got %+v", name, p)
		}
	}
}

func TestANodeWithoutHostHasDefaults(t *testing.T) {
	r := vars.For("base", &cluster.Node{Name: "a"})
	if got := r.Int("number", 3, 0, 9); got != 3 || r.Bad() {
		t.Errorf("got %d, %v", got, r.Problems())
	}
}
