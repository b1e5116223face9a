package haproxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/watch"
)

// Whatever was done through the runtime API, HAProxy runs what a fresh start from the
// files would run. HISTORY_SEED repeats a history.
func TestAnyHistoryLeavesWhatAFreshStartWouldRun(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("HISTORY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HISTORY_SEED=%d repeats this", seed)
	for i := range uint64(2) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			ports := freeRange(t, 6)
			e := newEdge(t, func(o *Options) {
				o.Settings.SpareBackends, o.Settings.ServicePortRange, o.Settings.Threads = 8, ports, 2
				// The files wait for a reload that is due.
				o.Patience = 200 * time.Millisecond
				o.DriftEvery = 0 // what is not right is not to be repaired before it is seen
			})
			h := &past{
				Rand: rand.New(rand.NewPCG(seed, i)), services: map[string]*watch.Service{}, tags: map[string][]string{}, ports: ports,
				own: []int{haproxytest.FreePort(t), haproxytest.FreePort(t)},
			}
			for step := range 40 {
				h.step()
				e.want(maps.Clone(h.services))
				switch {
				case step%8 == 7:
					e.runsItsFiles(fmt.Sprintf("seed %d/%d, step %d", seed, i, step))
				case h.IntN(3) == 0:
					e.untilStatus("applied", func(s Status) bool { return s.Revision == e.revision && s.Pending == "" })
				}
			}
			reloads := e.counts.reloaded()
			if err := e.Reload(t.Context(), "asked"); err != nil {
				t.Fatal(err)
			}
			e.runsItsFiles(fmt.Sprintf("seed %d/%d, reloaded", seed, i))
			e.counts.mu.Lock()
			defer e.counts.mu.Unlock()
			t.Logf("%d operations, %d reloads: %v", e.counts.ops, reloads, e.counts.reasons)
			if e.counts.failed > 0 {
				t.Errorf("%d reloads failed", e.counts.failed)
			}
		})
	}
}

// past is a world that changes at random.
type past struct {
	*rand.Rand
	services map[string]*watch.Service
	// tags of each service's instances.
	tags  map[string][]string
	ports render.PortRange
	own   []int
}

func (h *past) step() {
	for range 1 + h.IntN(3) {
		name := fmt.Sprintf("s%d", h.IntN(7))
		was := h.services[name]
		if was == nil || h.IntN(25) == 0 {
			h.services[name] = h.service(name)
			continue
		}
		if h.IntN(8) == 0 {
			delete(h.services, name)
			continue
		}
		s := *was
		s.Instances = slices.Clone(was.Instances)
		switch n := len(s.Instances); {
		case n == 0 || h.IntN(3) == 0 && n < 6:
			s.Instances = append(s.Instances, h.instance(name, h.tags[name]))
		case h.IntN(3) == 0:
			i := h.IntN(n)
			s.Instances = slices.Delete(s.Instances, i, i+1)
		default:
			i := h.IntN(n)
			id := s.Instances[i].ID
			s.Instances[i] = h.instance(name, h.tags[name])
			s.Instances[i].ID = id
		}
		seen := map[string]bool{}
		s.Instances = slices.DeleteFunc(s.Instances, func(i watch.Instance) bool { defer func() { seen[i.ID] = true }(); return seen[i.ID] })
		h.services[name] = &s
	}
}

func (h *past) service(name string) *watch.Service {
	port := func(n int) string { return fmt.Sprintf("mi-lb.port=%d", n) }
	ranged := h.ports.First + h.IntN(h.ports.Last-h.ports.First+1)
	tags := [][]string{
		nil, nil, {"mi-lb.host=" + name + ".org"}, {"mi-lb.host=shared.org", "mi-lb.path=/" + name}, {"mi-lb.sticky=true"},
		{port(ranged), "mi-lb.mode=tcp"}, {port(ranged), "mi-lb.mode=http"}, {port(h.own[h.IntN(len(h.own))])},
		{"mi-lb.balance=leastconn"}, {"mi-lb.balance=source"}, {"mi-lb.check.path=/health"}, {"mi-lb.timeout.server=5s"},
		{"mi-lb.host=strip.org", "mi-lb.path=/x", "mi-lb.path.strip=true"},
	}[h.IntN(13)]
	h.tags[name] = tags
	s := &watch.Service{Name: name}
	for range 1 + h.IntN(3) {
		i := h.instance(name, tags)
		i.ID = fmt.Sprintf("%s-%d", name, len(s.Instances))
		s.Instances = append(s.Instances, i)
	}
	return s
}

func (h *past) instance(name string, tags []string) watch.Instance {
	healths := []watch.Health{watch.HealthPassing, watch.HealthPassing, watch.HealthPassing, watch.HealthWarning, watch.HealthCritical, watch.HealthMaintenance}
	return watch.Instance{
		ID: fmt.Sprintf("%s-%d", name, h.IntN(6)), Node: "n1", Tags: tags,
		Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + h.IntN(4))}), uint16(1+h.IntN(4))),
		Health:  healths[h.IntN(len(healths))], Weights: watch.Weights{Passing: 1 + h.IntN(3), Warning: 1},
	}
}

// runsItsFiles waits until HAProxy runs what another one does that is started from the
// files.
func (e *edge) runsItsFiles(when string) {
	e.t.Helper()
	haproxytest.Until(e.t, when+": the files are right behind", func() error {
		s := e.Status()
		saved, err := loadState(e.options.StateFile)
		switch {
		case err != nil:
			return err
		case s.Revision != e.revision || s.Pending != "":
			return fmt.Errorf("%+v", s)
		case saved.Reloading:
			return errors.New("reloading")
		}
		return sameJSON([]any{e.Table().Routes, e.Table().Ports, e.Table().Backends}, []any{saved.Table.Routes, saved.Table.Ports, saved.Table.Backends})
	})
	saved, err := loadState(e.options.StateFile)
	if err != nil {
		e.t.Fatal(err)
	}
	fresh := e.fresh()
	haproxytest.Until(e.t, when+": it runs what a fresh start would", func() error {
		return sameTraffic(fresh, e.traffic(e.process.Runtime(), saved.Spares))
	})
}

// sameJSON is an error unless the two are written the same.
func sameJSON(want, got any) error {
	x, err1 := json.MarshalIndent(want, "", " ")
	y, err2 := json.MarshalIndent(got, "", " ")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if diff := cmp.Diff(string(x), string(y)); diff != "" {
		return fmt.Errorf("wanted (-), in the files (+):\n%s", diff)
	}
	return nil
}

var (
	socketLine = regexp.MustCompile(`(?m)^(\s+stats socket )\S+`)
	listens    = regexp.MustCompile(`(?m)^(\s+bind )\S+`)
)

// fresh is what a HAProxy runs that was just started from the files, with sockets of
// its own.
func (e *edge) fresh() traffic {
	e.t.Helper()
	dir := haproxytest.Dir(e.t)
	content, err := e.Configuration()
	if err != nil {
		e.t.Fatal(err)
	}
	socket := filepath.Join(dir, "fresh.sock")
	text := socketLine.ReplaceAllString(string(content), "${1}"+socket)
	n := 0
	text = listens.ReplaceAllStringFunc(text, func(line string) string {
		n++
		return listens.FindStringSubmatch(line)[1] + "unix@" + filepath.Join(dir, fmt.Sprint(n))
	})
	p := haproxytest.Start(e.t, haproxytest.WriteFile(e.t, dir, "haproxy.cfg", text), socket)
	defer p.Stop()
	return e.traffic(runtime.NewClient(socket), nil)
}

// traffic is what of a HAProxy matters to a request.
type traffic struct {
	// frontends by name, and backends with what `show stat` says of their options.
	frontends map[string]bool
	backends  map[string]string
	// servers of each backend.
	servers map[string]map[string]string
	// rows of each map: backends by key.
	rows map[string]map[string]string
}

// traffic that the HAProxy has now. A spare that has become a backend counts as that.
func (e *edge) traffic(client *runtime.Client, spares []plan.Spare) traffic {
	e.t.Helper()
	became := map[string]string{}
	for _, s := range spares {
		if s.ID != "" {
			became[s.Name] = encode.Name(s.ID)
		}
	}
	name := func(backend string) string {
		if is := became[backend]; is != "" {
			return is
		}
		return backend
	}
	all := traffic{map[string]bool{}, map[string]string{}, map[string]map[string]string{}, map[string]map[string]string{}}
	text, err := client.Read(e.t.Context(), "show stat -1 3 -1")
	if err != nil {
		e.t.Fatal(err)
	}
	header, rows, _ := strings.Cut(strings.TrimPrefix(text, "# "), "\n")
	columns := strings.Split(header, ",")
	for line := range strings.Lines(rows) {
		fields := strings.Split(strings.TrimSpace(line), ",")
		value := func(column string) string {
			if i := slices.Index(columns, column); i >= 0 && i < len(fields) {
				return fields[i]
			}
			return ""
		}
		if value("svname") == "FRONTEND" {
			all.frontends[value("pxname")] = true
		} else if backend := name(value("pxname")); backend != "" {
			all.backends[backend] = value("mode") + " " + value("algo") + " " + value("cookie")
		}
	}
	servers, err := client.Servers(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	for _, s := range servers {
		backend := name(s.Backend)
		if all.servers[backend] == nil {
			all.servers[backend] = map[string]string{}
		}
		state := s.State
		if s.State == runtime.Ready && s.Weight == 0 {
			state = runtime.Drain // as the files say it
		}
		what := fmt.Sprintf("%s %s", state, s.Address)
		if state == runtime.Ready {
			what += fmt.Sprintf(" weight %d", s.Weight)
		}
		all.servers[backend][s.Name] = what
	}
	loaded, err := client.Maps(e.t.Context())
	if err != nil {
		e.t.Fatal(err)
	}
	for _, m := range loaded {
		if filepath.Base(m.File) == "spare-checks.map" {
			continue // of spares alone, which a fresh start has not used yet
		}
		entries, err := client.MapEntries(e.t.Context(), m.File)
		if err != nil {
			e.t.Fatal(err)
		}
		all.rows[m.File] = map[string]string{}
		for _, row := range entries {
			all.rows[m.File][row.Key] = name(row.Value)
		}
	}
	return all
}

// sameTraffic is an error unless what runs is what a fresh start runs, and besides
// nothing but what waits for the next reload: servers in maintenance, and frontends and
// backends that no row leads to.
func sameTraffic(fresh, runs traffic) error {
	var errs []error
	differ := func(what string, want, got any) {
		if diff := cmp.Diff(want, got); diff != "" {
			errs = append(errs, fmt.Errorf("%s, by a fresh start (-), as it runs (+):\n%s", what, diff))
		}
	}
	differ("rows", fresh.rows, runs.rows)
	for frontend := range fresh.frontends {
		if !runs.frontends[frontend] {
			errs = append(errs, fmt.Errorf("frontend %s is not there", frontend))
		}
	}
	for backend, options := range fresh.backends {
		if !strings.HasPrefix(backend, render.SpareName(0)[:len("mi-lb:spare-")]) {
			differ("backend "+backend, options, runs.backends[backend])
		}
	}
	for backend, servers := range runs.servers {
		for server, what := range servers {
			if _, wanted := fresh.servers[backend][server]; !wanted && strings.HasPrefix(what, runtime.Maint+" ") {
				delete(servers, server)
			}
		}
		if len(servers) == 0 {
			delete(runs.servers, backend)
		}
	}
	differ("servers", fresh.servers, runs.servers)
	return errors.Join(errs...)
}
