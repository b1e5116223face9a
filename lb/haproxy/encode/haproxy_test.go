package encode_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
)

var texts = []string{
	"plain", " ", "a  b", "a\tb", `"`, `'`, `''`, `\`, `\\`, `\'`, `a\`, `\n`, `\x41`, "$HOME", "${HOME}", `"${HOME}"`, "%[env(HOME)]", "%%", "%",
	"%[src]", "#c", "a#b", ";", "a;show env", "<<", "<", "@1", "--", "-f", "}", "{ }", "a,b", "a)b(", "wéb", "\xff\xfe", "if TRUE", "unless",
}

// The words of a configuration that HAProxy has read can be seen with `show env`
// (a plain word) and in an answer (a log format), and those of a command in a map.
func TestHAProxyReadsEveryTextAsItWas(t *testing.T) {
	dir := haproxytest.Dir(t)
	socket := filepath.Join(dir, "s")
	port := haproxytest.FreePort(t)
	mapFile := haproxytest.WriteFile(t, dir, "m.map", "")
	var global, rules strings.Builder
	for i, text := range texts {
		word, err := encode.Quote(text)
		if err != nil {
			t.Fatal(err)
		}
		format, err := encode.LogFormat(text)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&global, "    setenv TEXT_%d %s\n", i, word)
		fmt.Fprintf(&rules, "    http-request return status 200 content-type text/plain lf-string %s if { path /%d }\n", format, i)
	}
	for _, line := range words {
		fmt.Fprintf(&global, "    setenv %s\n", line)
	}
	cfg := haproxytest.WriteFile(t, dir, "haproxy.cfg", fmt.Sprintf(`global
    stats socket %s mode 600 level admin
%sdefaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 1s
frontend f
    bind 127.0.0.1:%d
    http-request set-var(txn.m) path,map(%s)
%s`, socket, &global, port, mapFile, &rules))
	p := haproxytest.Start(t, cfg, socket)

	for i, text := range texts {
		if got, want := p.Command(fmt.Sprintf("show env TEXT_%d", i)), fmt.Sprintf("TEXT_%d=%s\n\n", i, text); got != want {
			t.Errorf("word %q was read as %q", text, got)
		}
		resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/%d", port, i))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(body) != text {
			t.Errorf("log format %q was answered as %q, %v", text, body, err)
		}
		arg, err := encode.Argument(text)
		if err != nil {
			t.Fatal(err)
		}
		if out := p.Command(fmt.Sprintf("clear map %s; add map %s key%d %s", mapFile, mapFile, i, arg)); strings.TrimSpace(out) != "" {
			t.Errorf("argument %q: %q", text, out)
		}
		if out := p.Command("show map " + mapFile); !strings.HasSuffix(strings.TrimRight(out, "\n"), fmt.Sprintf(" key%d %s", i, text)) {
			t.Errorf("argument %q was read as %q", text, out)
		}
	}
	for i, line := range words {
		read, err := encode.Words(line)
		if err != nil || len(read) < 2 {
			t.Errorf("Words(%q) = %q, %v", line, read, err)
			continue
		}
		if got, want := p.Command("show env "+read[0]), read[0]+"="+read[1]+"\n\n"; got != want {
			t.Errorf("%d: %q: HAProxy read %q, Words %q", i, line, got, want)
		}
	}
}

// Lines of `setenv` whose second word is written in every way HAProxy knows.
var words = []string{
	`W0 a\ b`, `W1 a\"b`, `W2 "a\ b"`, `W3 "a\#b"`, `W4 "a\"b"`, `W5 "a\'b"`, `W6 a\'b`, `W7 a\$b`, `W8 "a\$b"`, `W9 a\qb`,
	`W10 "a\qb"`, `W11 "a\tb"`, `W12 a\x41b`, `W13 'a\ b'`, `W14 'a\\b'`, `W15 a$b`, `W16 a${HOME}b`, `W17 a"b c"d`, `W18 a'#'b`,
	`W19 a\\b`, `W20 "a\\b"`, `W21 a#b`, `W22 ""x`, "W23\ta", `W24 x # comment`,
}

func TestEveryNameIsOneOfHAProxys(t *testing.T) {
	dir := haproxytest.Dir(t)
	var cfg strings.Builder
	cfg.WriteString("defaults\n    mode tcp\n    timeout connect 1s\n    timeout server 1s\n    timeout client 1s\nfrontend f\n    bind 127.0.0.1:1\n")
	for i, id := range append([]string{"-x", ".", "0", "web@dc2", "a/b", "wéb", strings.Repeat("y", 5000)}, texts...) {
		fmt.Fprintf(&cfg, "backend %s\n    server %s %s\n", encode.Name(fmt.Sprint(i, id)), encode.Name(id), net.JoinHostPort("::1", "80"))
	}
	if err := haproxytest.Validate(t, haproxytest.WriteFile(t, dir, "haproxy.cfg", cfg.String())); err != nil {
		t.Fatalf("%v\n%s", err, &cfg)
	}
}
