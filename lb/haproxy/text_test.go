package haproxy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/templates"
)

// ownTemplate is what operators of haproxy-consul have: nothing of ours but the
// socket, the rest consul-template's own functions.
const ownTemplate = `global
    stats socket {{ settings.Socket }} mode 600 level admin expose-fd listeners
defaults
    mode http
    timeout connect 1s
    timeout client 9s
    timeout server 9s
    option redispatch 1
frontend www
    bind 127.0.0.1:PORT
{{- range services }}
    acl host_{{ .Name }} hdr(host) -i {{ .Name }}.example.com
    use_backend {{ .Name }}_backend if host_{{ .Name }}
{{- end }}
{{- range services }}
backend {{ .Name }}_backend
    balance roundrobin
{{- if eq .Name "bad" }}
    frobnicate
{{- end }}
{{- range service .Name }}
    server {{ .Node }}-{{ .Port }} {{ .Address }}:{{ .Port }} weight {{ .Weights.Passing }} check inter 30s
{{- end }}
{{- end }}
`

func ownEdge(t *testing.T) (e *edge, engine *templates.Engine, write func(text string)) {
	dir := t.TempDir()
	write = func(text string) {
		t.Helper()
		text = strings.ReplaceAll(text, "PORT", fmt.Sprint(e.http))
		if err := os.WriteFile(filepath.Join(dir, "haproxy.cfg.ctmpl"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e = newEdge(t, func(o *Options) {
		// The port is known only now.
		e = &edge{http: portOf(t, o)}
		write(ownTemplate)
		var err error
		if engine, err = templates.New(templates.Options{Dir: dir}); err != nil {
			t.Fatal(err)
		}
		o.Engine = engine
	})
	return e, engine, write
}

func portOf(t *testing.T, o *Options) int {
	t.Helper()
	var port int
	if _, err := fmt.Sscanf(o.Settings.HTTP[0], "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	return port
}

func TestOperatorsOwnTemplateFollowsInstancesWithoutAReload(t *testing.T) {
	e, _, _ := ownEdge(t)
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a)))
	e.until("web.example.com", 200, "a")
	reloads := e.counts.reloaded()
	for range 3 {
		e.want(world(service("web", nil, a, b)))
		e.until("web.example.com", 200, "b")
		e.want(world(service("web", nil, b)))
		e.settled("backend web_backend\n    balance roundrobin\n    server n1-" + fmt.Sprint(service("web", nil, b).Instances[0].Address.Port()))
		for range 4 {
			e.until("web.example.com", 200, "b")
		}
		e.want(world(service("web", nil, a)))
		e.until("web.example.com", 200, "a")
	}
	if n := e.counts.reloaded() - reloads; n != 0 {
		t.Errorf("%d reloads: %v", n, e.counts.reasons)
	}
	// A service is a new section: that needs one.
	e.want(world(service("web", nil, a), service("api", nil, b)))
	e.until("api.example.com", 200, "b")
	e.untilStatus("applied", func(s Status) bool { return s.Pending == "" && s.Revision == e.revision })
	if n := e.counts.reloaded() - reloads; n != 1 {
		t.Errorf("%d reloads: %v", n, e.counts.reasons)
	}
}

func TestOperatorsOwnTemplateQuarantinesAndSurvivesMistakes(t *testing.T) {
	e, engine, write := ownEdge(t)
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a), service("bad", nil, b)))
	e.until("web.example.com", 200, "a")
	e.untilStatus("bad is quarantined", func(s Status) bool { return strings.Join(s.Quarantined, "") == "bad" })

	write(strings.ReplaceAll(ownTemplate, "balance roundrobin", "balance nonsense"))
	if err := engine.Reload(); err != nil {
		t.Fatal(err)
	}
	e.TemplatesChanged()
	haproxytest.Until(t, "the mistake is told", func() error {
		if s := e.Status(); !strings.Contains(s.LastError, "balance only supports") || !strings.Contains(s.LastError, "haproxy.cfg:") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	e.until("web.example.com", 200, "a")
	write(strings.ReplaceAll(ownTemplate, "frobnicate", "# mended"))
	if err := engine.Reload(); err != nil {
		t.Fatal(err)
	}
	e.TemplatesChanged()
	e.until("bad.example.com", 200, "b")
}

func TestOperatorsOwnTemplateIsTakenOverWithoutAReload(t *testing.T) {
	e, _, _ := ownEdge(t)
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a)))
	e.until("web.example.com", 200, "a")
	e.untilStatus("known", func(s Status) bool { return s.Running && s.Worker != 0 && s.Pending == "" })
	worker := e.Status().Worker
	e.leave()
	e.start()
	e.want(world(service("web", nil, b)))
	e.until("web.example.com", 200, "b")
	if now := e.Status().Worker; now != worker {
		t.Errorf("worker %d became %d: %v", worker, now, e.counts.reasons)
	}
}

func TestAFullDiskLeavesWhatRuns(t *testing.T) {
	disk := smallDisk(t)
	e := newEdge(t, func(o *Options) {
		o.Settings.Dir = filepath.Join(disk, "h")
		o.StateFile = filepath.Join(disk, "table.json")
	})
	a, b := says(t, "a"), says(t, "b")
	e.want(world(service("web", nil, a)))
	e.until("web.example.com", 200, "a")
	e.settled("backend web")
	before, err := render.Read(e.options.Settings.Dir)
	if err != nil {
		t.Fatal(err)
	}
	fill := filepath.Join(disk, "fill")
	fillUp(t, fill)

	// Instances change all the same; a new service has to wait; nothing is half
	// written.
	e.want(world(service("web", nil, b), service("api", nil, b)))
	e.until("web.example.com", 200, "b")
	haproxytest.Until(t, "the full disk is told", func() error {
		if s := e.Status(); !strings.Contains(s.LastError, "no space left") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	after, err := render.Read(e.options.Settings.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if !before.Equal(after) {
		t.Error("the files in force changed on a full disk")
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	e.until("api.example.com", 200, "b")
}
