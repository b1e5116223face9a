package encode

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestNameKeepsPlainIDsAndTellsAllOthersApart(t *testing.T) {
	for _, id := range []string{"web", "web-1.dc_2", "-x", "0", strings.Repeat("a", 100)} {
		if got := Name(id); got != id {
			t.Errorf("Name(%q) = %q, want it unchanged", id, got)
		}
	}
	names := map[string]string{}
	for _, id := range []string{
		"", ":", "a:b", "a_b", "a b", "a\nb", "web@dc2", "web:tcp", "web:", Name("web@dc2"), "wéb", "\xff",
		strings.Repeat("a", 101), strings.Repeat("a", 102), strings.Repeat("a", 10000),
	} {
		name := Name(id)
		if other, taken := names[name]; taken {
			t.Errorf("%q and %q are both %q", id, other, name)
		}
		names[name] = id
	}
	if got, want := Name("web@dc2"), "web_dc2:"; !strings.HasPrefix(got, want) || len(got) != len(want)+20 {
		t.Errorf("Name(web@dc2) = %q", got)
	}
}

func FuzzName(f *testing.F) {
	for _, seed := range nasty {
		f.Add(seed, seed+"x")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		name := Name(a)
		for i := range len(name) {
			if c := name[i]; !isNameByte(c) && c != ':' {
				t.Fatalf("Name(%q) = %q has %q", a, name, c)
			}
		}
		if (name == a) != isName(a) {
			t.Fatalf("Name(%q) = %q", a, name)
		}
		if a != b && name == Name(b) {
			t.Fatalf("%q and %q are both %q", a, b, name)
		}
	})
}

func TestEncodersRefuseWhatDoesNotFit(t *testing.T) {
	zone := netip.MustParseAddrPort("[fe80::1%eth0]:80")
	for name, encode := range map[string]func() (string, error){
		"host with space":        func() (string, error) { return Host("a b") },
		"host with empty label":  func() (string, error) { return Host("a..b") },
		"bare wildcard":          func() (string, error) { return Host("*") },
		"wildcard inside":        func() (string, error) { return Host("a.*.b") },
		"host with slash":        func() (string, error) { return Host("a/b") },
		"relative path":          func() (string, error) { return Path("a") },
		"path with line end":     func() (string, error) { return Path("/a\nb") },
		"path with blank":        func() (string, error) { return Path("/a b") },
		"path with environment":  func() (string, error) { return Path("/${HOME}") },
		"path with quote":        func() (string, error) { return Path("/'") },
		"path with comment":      func() (string, error) { return Path("/#") },
		"path with format":       func() (string, error) { return Path("/%[src]") },
		"negative number":        func() (string, error) { return Number(-1) },
		"negative duration":      func() (string, error) { return Duration(-1) },
		"endless duration":       func() (string, error) { return Duration(25 * 24 * time.Hour) },
		"address with zone":      func() (string, error) { return Address(zone) },
		"no address":             func() (string, error) { return Address(netip.AddrPort{}) },
		"text of two lines":      func() (string, error) { return Quote("a\nb") },
		"text with NUL":          func() (string, error) { return Quote("a\x00b") },
		"text with return":       func() (string, error) { return LogFormat("a\rb") },
		"map key with blank":     func() (string, error) { return MapKey("a b") },
		"map key as comment":     func() (string, error) { return MapKey("#a") },
		"empty map key":          func() (string, error) { return MapKey("") },
		"map value of two lines": func() (string, error) { return MapValue("a\nb") },
		"empty argument":         func() (string, error) { return Argument("") },
		"argument of two lines":  func() (string, error) { return Argument("a\nb") },
	} {
		t.Run(name, func(t *testing.T) {
			got, err := encode()
			if !errors.Is(err, errRefused) || got != "" {
				t.Fatalf("got %q, %v", got, err)
			}
			if strings.ContainsAny(err.Error(), "\n\r\x00") {
				t.Fatalf("the error has a control character: %q", err)
			}
		})
	}
}

func TestEncodersWriteWhatFits(t *testing.T) {
	for _, c := range []struct {
		want   string
		encode func() (string, error)
	}{
		{"web.example.com", func() (string, error) { return Host("Web.Example.COM.") }},
		{"*.example.com", func() (string, error) { return Host("*.Example.com") }},
		{"/api/v1;x=%20", func() (string, error) { return Path("/api/v1;x=%20") }},
		{"0", func() (string, error) { return Number(0) }},
		{"0ms", func() (string, error) { return Duration(0) }},
		{"30s", func() (string, error) { return Duration(30 * time.Second) }},
		{"1h", func() (string, error) { return Duration(time.Hour) }},
		{"90s", func() (string, error) { return Duration(90 * time.Second) }},
		{"1500ms", func() (string, error) { return Duration(1500 * time.Millisecond) }},
		{"1ms", func() (string, error) { return Duration(time.Nanosecond) }},
		{"10.0.0.1:80", func() (string, error) { return Address(netip.MustParseAddrPort("10.0.0.1:80")) }},
		{"10.0.0.1:80", func() (string, error) { return Address(netip.MustParseAddrPort("[::ffff:10.0.0.1]:80")) }},
		{"[::1]:80", func() (string, error) { return Address(netip.MustParseAddrPort("[::1]:80")) }},
		{`'it'\''s "$HOME" #1'`, func() (string, error) { return Quote(`it's "$HOME" #1`) }},
		{`'100%% %%[src]'`, func() (string, error) { return LogFormat("100% %[src]") }},
		{`a\;\ b\\\"`, func() (string, error) { return Argument(`a; b\"`) }},
		{`\<\<`, func() (string, error) { return Argument(`<<`) }},
		{"k v w", func() (string, error) { return MapRow("k", "v w") }},
	} {
		if got, err := c.encode(); err != nil || got != c.want {
			t.Errorf("got %q, %v, want %q", got, err, c.want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, seed := range nasty {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted, err := Quote(s)
		if err != nil {
			return
		}
		words, err := Words("x " + quoted + " y")
		if err != nil || len(words) != 3 || words[1] != s {
			t.Fatalf("%q became %q, read as %q, %v", s, quoted, words, err)
		}
	})
}

func FuzzOneWord(f *testing.F) {
	for _, seed := range nasty {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, encode := range map[string]func(string) (string, error){"Path": Path, "Host": Host} {
			text, err := encode(s)
			if err != nil {
				continue
			}
			words, err := Words("x " + text + " y")
			if err != nil || len(words) != 3 || words[1] != text || strings.Contains(text, "%[") || strings.Contains(text, "$") {
				t.Fatalf("%s(%q) = %q, read as %q, %v", name, s, text, words, err)
			}
		}
		if row, err := MapRow(s, "v"); err == nil && (strings.ContainsAny(row, "\n\r\x00") || strings.Count(row, " ") != 1) {
			t.Fatalf("MapRow(%q) = %q", s, row)
		}
		if row, err := MapRow("k", s); err == nil && (strings.ContainsAny(row, "\n\r\x00") || row != "k "+s) {
			t.Fatalf("MapRow(k, %q) = %q", s, row)
		}
	})
}

func FuzzArgument(f *testing.F) {
	for _, seed := range nasty {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		arg, err := Argument(s)
		if err != nil {
			return
		}
		if got := commands("x " + arg + " y"); len(got) != 1 || len(got[0]) != 3 || got[0][1] != s {
			t.Fatalf("%q became %q, read as %q", s, arg, got)
		}
	})
}

// commands reads a line of the socket as HAProxy does: split at ";" and blanks
// that no backslash precedes, then backslashes undone.
func commands(line string) [][]string {
	var all [][]string
	var words []string
	var word strings.Builder
	open := false
	end := func() {
		if open {
			words = append(words, word.String())
		}
		word.Reset()
		open = false
	}
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			open = true
		case c == ' ' || c == '\t':
			end()
		case c == ';':
			end()
			all = append(all, words)
			words = nil
		default:
			word.WriteByte(c)
			open = true
		}
	}
	end()
	return append(all, words)
}

func FuzzWords(f *testing.F) {
	for _, seed := range nasty {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := Words(s)
		if err != nil {
			return
		}
		var line []string
		for _, w := range words {
			quoted, err := Quote(w)
			if err != nil {
				return
			}
			line = append(line, quoted)
		}
		again, err := Words(strings.Join(line, " "))
		if err != nil || len(again) != len(words) {
			t.Fatalf("%q read as %q, written and read again as %q, %v", s, words, again, err)
		}
	})
}

var nasty = []string{
	"web", "", " ", "a b", "a\tb", "a\nb", "a\r\nserver evil 1.2.3.4:80", "\x00", "\x7f", `"`, `'`, `''`, `\`, `\\`, `\'`, `a\`,
	"$HOME", "${HOME}", `"${HOME}"`, "%[env(HOME)]", "%%", "%", "#", "#c", "a#b", ";", "a;show env", "<<", "<", "@1", "--", "-f",
	"}", "{", "{ }", "a,b", "a)b(", "wéb", "\xff\xfe", "\u2028", "/a;b", "//", "/../", "*.a", "a.", "A.B:80", strings.Repeat("x", 10000),
}
