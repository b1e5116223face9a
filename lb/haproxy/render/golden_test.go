package render

import (
	"bytes"
	"flag"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/templates"
)

var update = flag.Bool("update", false, "write the golden files")

func newRenderer(t testing.TB) *Renderer {
	t.Helper()
	engine, err := templates.New(templates.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return New(engine)
}

const goldenDir = "/var/lib/mi-lb/haproxy"

// Every golden file is what a table becomes, and HAProxy accepts it.
func TestRenderedFilesAreTheGoldenOnes(t *testing.T) {
	full := Settings{
		Domain: "mi-lb.example.com", User: "haproxy", Group: "haproxy", MaxConn: 20000, Threads: 2,
		HTTP: []string{"0.0.0.0:80", "[::]:80"}, HTTPS: []string{":443"}, AppID: []string{"0.0.0.0:9091"},
		ServicePortRange: PortRange{10000, 10100}, Log: "/dev/log local0", SpareBackends: 2,
		TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/8")},
		HardStopAfter:  time.Hour, BufferSize: 32768, HTTPReuse: "aggressive", AbortOnClose: true, LogErrors: true,
	}
	certificates := full
	certificates.Certificates = "/etc/mi-lb/certs"
	withoutSNI := everything()
	withoutSNI.Routes = slices.DeleteFunc(withoutSNI.Routes, func(r routing.Route) bool { return r.Kind == routing.BySNI })
	for name, c := range map[string]struct {
		table    *routing.Table
		settings Settings
	}{
		"empty":                           {&routing.Table{}, Settings{}},
		"http":                            {&routing.Table{Backends: []*routing.Backend{backend("web", server("w1", "10.0.0.1:80"))}, Routes: []routing.Route{byHost("web.example.com", "/", "web")}}, Settings{HTTP: []string{":80"}, Descriptors: 20000, Log: "/dev/log local0", LogFormat: `%ci "%r" %ST`}},
		"everything":                      {everything(), certificates},
		"passthrough-without-certificate": {everything(), full},
		"certificate-without-passthrough": {withoutSNI, certificates},
	} {
		t.Run(name, func(t *testing.T) {
			c.settings.Dir = goldenDir
			files, err := newRenderer(t).Render(t.Context(), c.table, c.settings, nil)
			if err != nil {
				t.Fatal(err)
			}
			compareGolden(t, filepath.Join("testdata", name+".txtar"), files)
			acceptedByHAProxy(t, files)
		})
	}
}

func compareGolden(t *testing.T, path string, files Files) {
	t.Helper()
	var archive txtar.Archive
	for _, name := range slices.Sorted(maps.Keys(files)) {
		archive.Files = append(archive.Files, txtar.File{Name: name, Data: files[name]})
	}
	got := txtar.Format(&archive)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run with -update and look at the difference):\n%s", path, got)
	}
}

// acceptedByHAProxy checks the files as they are, but for the paths of this machine.
func acceptedByHAProxy(t *testing.T, files Files) {
	t.Helper()
	dir := haproxytest.Dir(t)
	moved := maps.Clone(files)
	config := strings.ReplaceAll(string(files[ConfigFile]), goldenDir, dir)
	config = strings.ReplaceAll(config, "/etc/mi-lb/certs", certificate(t, dir))
	moved[ConfigFile] = []byte(config)
	staged, err := Stage(dir, moved)
	if err != nil {
		t.Fatal(err)
	}
	path, err := staged.CheckFile()
	if err != nil {
		t.Fatal(err)
	}
	if err := haproxytest.Validate(t, path); err != nil {
		t.Errorf("%v\n%s", err, config)
	}
}
