package render

import (
	"errors"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
)

// hostile is a table with the text in every place that takes any text.
func hostile(text string) (*routing.Table, Settings) {
	b := backend(text, server(text, "10.0.0.1:80"))
	b.Service = text
	b.Sticky = true
	t := tcp(backend("tcp"+text, server("x"+text, "10.0.0.2:80")))
	return &routing.Table{
		Backends: []*routing.Backend{b, t},
		Ports: []routing.Port{
			{Number: 9000, Protocol: routing.HTTP, Backend: text, Service: text, Via: text},
			{Number: 9001, Protocol: routing.TCP, Backend: "tcp" + text, Service: text, Via: text},
		},
		Routes: []routing.Route{
			{Kind: routing.ByHost, Host: "a.example.com", Path: "/x", Backend: text, Service: text, Via: text},
			{Kind: routing.BySNI, Host: "a.example.com", Backend: "tcp" + text},
			{Kind: routing.ByAppID, Host: "/a", Backend: text},
		},
	}, Settings{Dir: "/d", HTTP: []string{":80"}, HTTPS: []string{":443"}, AppID: []string{":81"}, Domain: "d", StickyKey: "k" + text, Log: "127.0.0.1 local0"}
}

var nasty = []string{
	"web", "", " ", "a b", "a\nserver evil 1.2.3.4:80", "a\r\nbackend evil", "\x00", `"`, `'`, `\`, `a\`, "${HOME}", `"${HOME}"`, "%[src]", "#", "a #b",
	";", "<<", "{", "}", "if TRUE", "\xff", "wéb", "\u2028", "{{ env \"HOME\" }}", "{{ template \"global\" }}", strings.Repeat("x", 10000),
}

// skeleton is the first word of every line and the number of its words: what
// directives there are, without the names.
func skeleton(t testing.TB, config []byte) []string {
	t.Helper()
	var list []string
	for line := range strings.Lines(string(config)) {
		words, err := encode.Words(line)
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if len(words) > 0 {
			list = append(list, words[0]+strings.Repeat(" x", len(words)-1))
		}
	}
	return list
}

func FuzzNoTextOfATableAddsADirective(f *testing.F) {
	for _, text := range nasty {
		f.Add(text)
	}
	renderer := newRenderer(f)
	table, settings := hostile("plain")
	plain, err := renderer.Render(f.Context(), table, settings, nil)
	if err != nil {
		f.Fatal(err)
	}
	want := skeleton(f, plain[ConfigFile])
	f.Fuzz(func(t *testing.T, text string) {
		table, settings := hostile(text)
		files, err := renderer.Render(t.Context(), table, settings, nil)
		if err != nil {
			return
		}
		if got := skeleton(t, files[ConfigFile]); !slices.Equal(got, want) {
			t.Errorf("%q adds a directive:\n%s", text, files[ConfigFile])
		}
		for name, content := range files {
			if strings.HasSuffix(name, ".map") && strings.Count(string(content), "\n") != strings.Count(string(plain[name]), "\n") {
				t.Errorf("%q adds a row to %s:\n%s", text, name, content)
			}
		}
		args, err := renderer.ServerArgs(table.Backends[0], table.Backends[0].Servers, settings)
		if err != nil || len(args) != 1 || strings.ContainsAny(args[0], "\n\r;") {
			t.Errorf("%q as a server: %q, %v", text, args, err)
		}
	})
}

func FuzzHostsAndPathsStayInTheirRows(f *testing.F) {
	for _, text := range nasty {
		f.Add(text, text)
	}
	f.Add("a.example.com", "/%41;x=y")
	f.Fuzz(func(t *testing.T, host, path string) {
		_, row, err := MapRow(routing.Route{Kind: routing.ByHost, Host: host, Path: path, Backend: "b"})
		if err != nil {
			return
		}
		if strings.ContainsAny(row.Key, " \t\n\r\x00#$'\"\\") || !strings.Contains(row.Key, "/") {
			t.Errorf("%q %q is the row %q", host, path, row.Key)
		}
	})
}

func TestHAProxyAcceptsHostileTables(t *testing.T) {
	accepted := 0
	for _, text := range nasty {
		table, settings := hostile(text)
		settings.Dir = goldenDir
		if strings.ContainsAny(text, "\x00\n\r") {
			settings.StickyKey = "k"
			for i := range table.Ports {
				table.Ports[i].Via = "x"
			}
		}
		files, err := newRenderer(t).Render(t.Context(), table, settings, nil)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		acceptedByHAProxy(t, files)
		accepted++
	}
	if accepted != len(nasty) {
		t.Errorf("%d of %d were rendered", accepted, len(nasty))
	}
}

func TestWhatCannotBeWrittenNamesItsService(t *testing.T) {
	for name, spoil := range map[string]func(t *routing.Table){
		"no address":        func(t *routing.Table) { t.Backends[0].Servers[0].Address = netip.AddrPort{} },
		"weight":            func(t *routing.Table) { t.Backends[0].Servers[0].Weight = 257 },
		"balance":           func(t *routing.Table) { t.Backends[0].Balance = "roundrobin\nserver evil 1.2.3.4:80" },
		"balance argument":  func(t *routing.Table) { t.Backends[0].Balance = "hdr(a) b" },
		"strip path":        func(t *routing.Table) { t.Backends[0].StripPath = "/a b" },
		"check path":        func(t *routing.Table) { t.Backends[0].Check.Path = "/a\nb" },
		"endless timeout":   func(t *routing.Table) { t.Backends[0].Timeouts.Server = 1 << 60 },
		"negative interval": func(t *routing.Table) { t.Backends[0].Check.Timeout = -time.Second },
		"two servers": func(t *routing.Table) {
			t.Backends[0].Servers = append(t.Backends[0].Servers, t.Backends[0].Servers[0])
		},
		"host":                  func(t *routing.Table) { t.Routes[0].Host = "a b" },
		"path":                  func(t *routing.Table) { t.Routes[0].Path = "/a b" },
		"route without backend": func(t *routing.Table) { t.Backends = nil },
		"tcp behind host":       func(t *routing.Table) { t.Backends[0].Protocol = routing.TCP },
		"port without backend":  func(t *routing.Table) { t.Ports = []routing.Port{{Number: 1, Backend: "x", Service: "web"}} },
		"port of other protocol": func(t *routing.Table) {
			t.Ports = []routing.Port{{Number: 1, Backend: "web", Service: "web", Protocol: routing.TCP}}
		},
		"port out of range": func(t *routing.Table) {
			t.Ports = []routing.Port{{Number: 70000, Backend: "web", Service: "web", Protocol: routing.HTTP}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			table := &routing.Table{Backends: []*routing.Backend{backend("web", server("s", "10.0.0.1:80"))}, Routes: []routing.Route{byHost("a.b", "/", "web")}}
			spoil(table)
			_, err := newRenderer(t).Render(t.Context(), table, Settings{Dir: "/d"}, nil)
			var input *InputError
			if !errors.As(err, &input) || input.Service != "web" {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestServerArgsComeFromTheOperatorsTemplate(t *testing.T) {
	dir := t.TempDir()
	write := func(text string) *Renderer {
		haproxytest.WriteFile(t, dir, "server", text)
		engine, err := templates.New(templates.Options{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		return New(engine)
	}
	b := backend("web@dc2", server("a;b", "10.0.0.1:80"), server("c", "[::1]:81"))
	got, err := write("{{ .Name }} {{ .Address }} ssl sni 'str(a b)' # why\n").ServerArgs(b, b.Servers, Settings{Dir: "/d"})
	want := []string{
		encode.Name("web@dc2") + "/" + encode.Name("a;b") + ` 10.0.0.1:80 ssl sni str(a\ b)`,
		encode.Name("web@dc2") + `/c [::1]:81 ssl sni str(a\ b)`,
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := write("{{ .Name }} {{ .Address }}\n{{ .Name }}2 {{ .Address }}\n").ServerArgs(b, b.Servers, Settings{Dir: "/d"}); err == nil {
		t.Error("two lines for one server are accepted")
	}
	_, err = write("{{ .Name }}\n{{ .Addres }}\n").ServerArgs(b, b.Servers, Settings{Dir: "/d"})
	var mistake *templates.Error
	if !errors.As(err, &mistake) || mistake.File != filepath.Join(dir, "server") || mistake.Line != 2 {
		t.Errorf("got %v", err)
	}
	if got, err := newRenderer(t).ServerArgs(b, nil, Settings{Dir: "/d"}); err != nil || len(got) != 0 {
		t.Errorf("no servers give %q, %v", got, err)
	}
}

func TestSettingsSayWhatIsWrong(t *testing.T) {
	wrong := Settings{
		Dir: "relative", HTTP: []string{"80", "example.com:80", "1.2.3.4:0"}, ServicePortAddress: "x", ServicePortRange: PortRange{2, 1},
		MaxConn: -1, User: "a\nb",
	}
	err := wrong.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		"state_dir: ", `listen.http: "80"`, `listen.http: "example.com:80"`, `listen.http: "1.2.3.4:0"`,
		"listen.service_port_address: ", "listen.service_port_range: ", "haproxy.maxconn: ", "haproxy: ",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	right := Settings{Dir: "/d", HTTP: []string{":80", "*:81", "0.0.0.0:82", "[::]:83"}, ServicePortRange: PortRange{10000, 10100}}
	if err := right.Validate(); err != nil {
		t.Error(err)
	}
}

func TestOperatorsTemplateTakesThePlaceOfABuiltInOne(t *testing.T) {
	dir := t.TempDir()
	haproxytest.WriteFile(t, dir, "global.tmpl", "global\n    # mine\n    stats socket {{ settings.Socket }} mode 600 level admin expose-fd listeners")
	haproxytest.WriteFile(t, dir, "extra.map", "{{ range table.Backends }}{{ mapRow .ID \"x\" }}\n{{ end }}")
	engine, err := templates.New(templates.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	files, err := New(engine).Render(t.Context(), &routing.Table{Backends: []*routing.Backend{backend("web")}}, Settings{Dir: goldenDir, HTTP: []string{":80"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(files[ConfigFile]), "global\n    # mine\n") || string(files["extra.map"]) != "web x\n" {
		t.Errorf("rendered:\n%s\n%s", files[ConfigFile], files["extra.map"])
	}
	acceptedByHAProxy(t, files)
}

func TestStructureChangesWithWhatMapsCannotSay(t *testing.T) {
	s := Settings{Dir: "/d", HTTPS: []string{":443"}, Certificates: "/c", ServicePortRange: PortRange{100, 102}}
	web := byHost("a.b", "/", "web")
	sni := routing.Route{Kind: routing.BySNI, Host: "a.b", Backend: "tls"}
	port := func(n int, p routing.Protocol) routing.Port {
		return routing.Port{Number: n, Protocol: p, Backend: "web"}
	}
	for _, c := range []struct {
		table routing.Table
		want  string
	}{
		{routing.Table{}, "0.0.0.0:100-102"},
		{routing.Table{Routes: []routing.Route{web}, Ports: []routing.Port{port(9000, routing.HTTP), port(101, routing.TCP)}}, "0.0.0.0:100-102"},
		{routing.Table{Routes: []routing.Route{web, sni}}, "passthrough 0.0.0.0:100-102"},
		{routing.Table{Ports: []routing.Port{port(101, routing.HTTP)}}, "0.0.0.0:100-102"},
	} {
		if got := s.Structure(&c.table); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
	s.BlockedPorts = []int{101}
	if got := s.Structure(&routing.Table{}); got != "0.0.0.0:100-100 0.0.0.0:102-102" {
		t.Errorf("with a blocked port: %q", got)
	}
}

func TestSparesAreLikeTheBackendsThatTheyCanBecome(t *testing.T) {
	spoils := []func(b *routing.Backend){
		func(*routing.Backend) {},
		func(b *routing.Backend) { b.Protocol = routing.TCP },
		func(b *routing.Backend) { b.Balance = "leastconn" },
		func(b *routing.Backend) { b.Balance = "hdr(X-User)" },
		func(b *routing.Backend) { b.Sticky = true },
		func(b *routing.Backend) { b.Sticky, b.Protocol = true, routing.TCP },
		func(b *routing.Backend) { b.Timeouts = routing.Timeouts{Connect: 1e9, Server: 2e9, Tunnel: 3e9} },
		func(b *routing.Backend) { b.Check.Timeout = 20e9 },
		func(b *routing.Backend) { b.Check.Path = "/x" },
		func(b *routing.Backend) {
			b.Check = routing.Check{Path: "/x", Timeout: 20e9, Interval: 60e9, Fall: 4, Port: 81, TLS: true}
		},
		func(b *routing.Backend) { b.Check = routing.Check{Path: "/x", Timeout: 20e9, Disabled: true} },
	}
	for i, spoil := range spoils {
		own := backend("web", server("w1", "10.0.0.1:80"))
		spoil(own)
		settings := Settings{Dir: goldenDir, SpareBackends: 8, HTTP: []string{":80"}, Domain: "example.com"}
		table := &routing.Table{Backends: []*routing.Backend{own}}
		files, err := newRenderer(t).Render(t.Context(), table, settings, nil)
		if err != nil {
			t.Fatal(err)
		}
		acceptedByHAProxy(t, files)
		sections := map[string]*section{}
		for _, s := range split(files[ConfigFile]) {
			sections[s.name] = s
		}
		found := false
		for _, spare := range settings.Spares(table) {
			if spare.Shape != Shape(own) {
				continue
			}
			found = true
			_, rows, err := settings.ClaimRows(spare.Name, own)
			if err != nil {
				t.Fatal(err)
			}
			// What the map says once the spare is claimed is what stands in the section.
			said := strings.Join(sections[spare.Name].lines, "\n")
			said = strings.NewReplacer("uri-lf", "uri", "'", "").Replace(said)
			for _, row := range rows {
				suffix := strings.TrimPrefix(row.Key, spare.Name)
				for _, fallback := range []string{"/", "localhost"} {
					said = strings.ReplaceAll(said, "%[be_name,concat("+suffix+"),map("+Current(goldenDir)+"/spare-checks.map,"+fallback+")]", row.Value)
				}
			}
			if want := strings.ReplaceAll(strings.Join(sections["web"].lines, "\n"), "'", ""); said != want {
				t.Errorf("%d: %s says\n%s\nand web\n%s", i, spare.Name, said, want)
			}
			// HAProxy makes another one like it, if defaults can have all that is in it.
			name := ShapeName(spare.Shape)
			if name == "" {
				if !own.Sticky || own.Protocol != routing.TCP {
					t.Errorf("%d: no defaults for the shape %q", i, spare.Shape)
				}
				continue
			}
			if d := sections[name]; d == nil || d.kind != "defaults" || !slices.Equal(d.lines, sections[spare.Name].lines) {
				t.Errorf("%d: the defaults of %s differ from it: %+v", i, spare.Name, d)
			}
		}
		if !found {
			t.Errorf("%d: no spare has the shape %q", i, Shape(own))
		}
	}
}

func TestNoSpareIsForWhatHardlyAnyServiceHas(t *testing.T) {
	b := backend("web")
	b.StripPath = "/api"
	if got := Shape(b); got != "" {
		t.Errorf("shape %q", got)
	}
	table := &routing.Table{Backends: []*routing.Backend{b}}
	for _, spare := range (Settings{Dir: "/d", SpareBackends: 8}).Spares(table) {
		if spare.Shape != Shape(backend("web")) {
			t.Errorf("a spare %q", spare.Shape)
		}
	}
}

func TestMostSparesAreOfTheShapesThatServicesHaveMost(t *testing.T) {
	table := &routing.Table{}
	for i := range 100 {
		b := backend(strconv.Itoa(i))
		switch {
		case i < 60:
			b.Check = routing.Check{Path: "/health", Timeout: 20e9}
		case i < 80:
			b.Balance = "leastconn"
		default:
			b.Timeouts.Server = time.Duration(i) * time.Second
		}
		table.Backends = append(table.Backends, b)
	}
	counts := map[string]int{}
	for i, spare := range (Settings{Dir: "/d", SpareBackends: 64, ServicePortRange: PortRange{1, 2}}).Spares(table) {
		if spare.Name != SpareName(i) {
			t.Errorf("the spare %d is called %s", i, spare.Name)
		}
		counts[spare.Shape]++
	}
	if len(counts) != mostShapes || counts["http, roundrobin"] != 16 || counts["http, roundrobin, httpchk, check 20s"] < 40 || counts["http, leastconn"] < 13 {
		t.Errorf("spares %v", counts)
	}
}

func TestEdgesOfOneDirectoryAndOtherListenersShareNoSocket(t *testing.T) {
	named := regexp.MustCompile(`abns@\S+`)
	seen := map[string]int{}
	for _, http := range []string{":80", ":8080"} {
		files, err := newRenderer(t).Render(t.Context(), everything(), Settings{Dir: goldenDir, HTTP: []string{http}, HTTPS: []string{":443"}, Certificates: "/c"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		names := map[string]bool{}
		for _, name := range named.FindAllString(string(files[ConfigFile]), -1) {
			names[name] = true
		}
		for name := range names {
			seen[name]++
		}
	}
	for name, times := range seen {
		if times > 1 {
			t.Errorf("%s is of both", name)
		}
	}
	if len(seen) < 4 {
		t.Errorf("sockets: %v", seen)
	}
}
