package haproxy

import (
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
)

// afterReload is told of a reload before anything else is done.
type afterReload struct {
	*counts
	reloaded func()
}

func (a afterReload) Reloaded(reason string, ok bool) {
	a.counts.Reloaded(reason, ok)
	if ok {
		a.reloaded()
	}
}

// slowCheck is a haproxy that validates only while there is no gate, and a function
// that says whether somebody waits for that.
func slowCheck(t *testing.T, path string) (program, gate string, waited func() error) {
	t.Helper()
	dir := t.TempDir()
	program, gate = filepath.Join(dir, "haproxy"), filepath.Join(dir, "gate")
	waits := filepath.Join(dir, "waits")
	script := fmt.Sprintf("#!/bin/sh\nif [ \"$1\" = -c ]; then\n\twhile [ -e %s ]; do : >%s; sleep 0.01; done\nfi\nexec %s \"$@\"\n", gate, waits, path)
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program, gate, func() error {
		_, err := os.Stat(waits)
		return err
	}
}

func TestAReloadDoesNotGoBackBehindWhatWasDoneWhileItWasPrepared(t *testing.T) {
	var gate string
	var waited func() error
	var look atomic.Pointer[func()]
	e := newEdge(t, func(o *Options) {
		o.Path, gate, waited = slowCheck(t, o.Path)
		o.Observer = afterReload{o.Observer.(*counts), func() {
			if f := look.Load(); f != nil {
				(*f)()
			}
		}}
	})
	a, b, x := says(t, "a"), says(t, "b"), says(t, "x")
	first, second := service("web", nil, a), service("web", nil, b)
	second.Instances[0].ID = "web-1"
	e.want(world(first))
	e.untilState(a, "a serves", ready)

	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	port := haproxytest.FreePort(t)
	opened := service("x", []string{fmt.Sprintf("mi-lb.port=%d", port)}, x)
	e.want(world(first, opened))
	haproxytest.Until(t, "the files of a reload are validated", waited)
	e.want(world(second, opened))
	e.untilState(b, "b serves", ready)
	a.Close()

	var servers []runtime.Server
	var err error
	read := make(chan struct{})
	f := func() {
		look.Store(nil)
		servers, err = e.process.Runtime().Servers(t.Context())
		close(read)
	}
	look.Store(&f)
	if err := os.Remove(gate); err != nil {
		t.Fatal(err)
	}
	for done := false; !done; {
		select {
		case <-read:
			done = true
		default:
		}
		if status, body, err := e.get("web.example.com"); err != nil || status != 200 || body != "b" {
			t.Errorf("during the reload web answers %d %q, %v", status, body, err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	var web []string
	for _, s := range servers {
		if s.Backend == "web" {
			web = append(web, s.Address.String()+" "+s.State)
		}
	}
	if want := fmt.Sprint([]string{b.Listener.Addr().String() + " " + runtime.Ready}); fmt.Sprint(web) != want {
		t.Errorf("the new worker began with %v, not %s", web, want)
	}
	portSays(t, port, "x")
}
