package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
)

// edge is a real HAProxy with one HTTP frontend in front of backend web.
type edge struct {
	client  *runtime.Client
	process *haproxytest.Process
	url     string
	mapFile string
}

func startEdge(t *testing.T, servers string) *edge {
	t.Helper()
	dir := haproxytest.Dir(t)
	port := haproxytest.FreePort(t)
	mapFile := haproxytest.WriteFile(t, dir, "x.map", "a one\nb two words\n")
	config := haproxytest.WriteFile(t, dir, "haproxy.cfg", fmt.Sprintf(`global
	stats socket %[1]s mode 600 level admin expose-fd listeners
	description generation 7
	maxconn 500
defaults
	mode http
	timeout connect 2s
	timeout client 10s
	timeout server 10s
	retries 2
	option redispatch
frontend f
	bind 127.0.0.1:%[2]d
	http-request set-header x %%[req.hdr(host),map(%[3]s)]
	default_backend web
backend web
	balance roundrobin
%[4]s
backend hashed
	balance source
`, filepath.Join(dir, "s.sock"), port, mapFile, servers))
	e := &edge{url: fmt.Sprintf("http://127.0.0.1:%d/", port), mapFile: mapFile}
	e.process = haproxytest.Start(t, config, filepath.Join(dir, "s.sock"))
	e.client = runtime.NewClient(filepath.Join(dir, "s.sock"))
	return e
}

// origin answers every request with its name.
func origin(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

func must(t *testing.T) func(string, error) string {
	return func(cmd string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	}
}

func run(t *testing.T, c *runtime.Client, cmds ...string) []runtime.Reply {
	t.Helper()
	replies, err := c.Exec(t.Context(), cmds)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range replies {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return replies
}

func TestRepliesAreMappedByPositionWhateverHAProxyAnswers(t *testing.T) {
	e := startEdge(t, "server a 127.0.0.1:1 disabled")
	cmds := []string{
		"set server web/a weight 5",       // silence
		"set server web/none weight 5",    // an error with an empty line after it
		"set server web/a weight bad",     // one without
		"set server web/a weight 6",       // silence after that
		"show version",                    // equal to what separates answers
		"bogus",                           // many lines, an empty one at the end
		"show map",                        // a listing
		"show map " + e.mapFile,           //
		"add server hashed/x 127.0.0.1:1", // refused by the balance
		"help",                            //
		"del map " + e.mapFile + " nokey", //
	}
	replies, err := e.client.Exec(t.Context(), cmds)
	if err != nil {
		t.Fatal(err)
	}
	if len(replies) != len(cmds) {
		t.Fatalf("%d replies to %d commands", len(replies), len(cmds))
	}
	var failed []int
	for i, r := range replies {
		if r.Command != cmds[i] {
			t.Errorf("reply %d is to %q, not %q", i, r.Command, cmds[i])
		}
		if r.Err() != nil {
			failed = append(failed, i)
		}
	}
	if want := []int{1, 2, 5, 8, 10}; !slices.Equal(failed, want) {
		t.Errorf("refused: %v, want %v: %+v", failed, want, replies)
	}
	var refused *runtime.CommandError
	if !errors.As(replies[5].Err(), &refused) || !refused.Unknown {
		t.Errorf("an unknown command is told as %v", replies[5].Err())
	}
	if errors.As(replies[1].Err(), &refused); refused.Severity != runtime.Error || refused.Unknown {
		t.Errorf("no such server is told as %+v", refused)
	}
	if !strings.HasPrefix(replies[4].Text, "2.") && !strings.HasPrefix(replies[4].Text, "3.") {
		t.Errorf("version %q", replies[4].Text)
	}
	if !strings.Contains(replies[9].Text, "add server") {
		t.Errorf("help lacks its list")
	}
}

func TestBatchesOfAnySizeAreAnswered(t *testing.T) {
	e := startEdge(t, "server a 127.0.0.1:1 disabled")
	cmds := make([]string, 5000)
	for i := range cmds {
		cmds[i] = fmt.Sprintf("set server web/a weight %d", i%256)
		if i%1000 == 7 {
			cmds[i] = "set server web/a weight bad"
		}
	}
	start := time.Now()
	replies, err := e.client.Exec(t.Context(), cmds)
	t.Logf("5000 commands in %s", time.Since(start))
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range replies {
		if (r.Err() != nil) != (i%1000 == 7) {
			t.Fatalf("command %d %q: %v", i, r.Command, r.Err())
		}
	}
	servers, err := e.client.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := []runtime.Server{{Backend: "web", Name: "a", Address: netip.MustParseAddrPort("127.0.0.1:1"), State: runtime.Maint, Weight: 4999 % 256}}; !cmp.Equal(servers, want, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })) {
		t.Errorf("servers %+v, want %+v", servers, want)
	}
}

func TestServersChangeUnderLoadWithoutAFailedRequest(t *testing.T) {
	e := startEdge(t, "")
	a, b := origin(t, "a"), origin(t, "b")
	ok := must(t)
	add := func(name string, address netip.AddrPort) {
		t.Helper()
		run(t, e.client, ok(runtime.AddServer("web", name, address.String()+" check inter 1s")),
			ok(runtime.EnableHealth("web", name)), ok(runtime.SetServerState("web", name, runtime.Ready)))
	}
	add("keeps", a)

	ctx, stop := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var asked, failed atomic.Int64
	for range 4 {
		load.Go(func() {
			client := &http.Client{Transport: &http.Transport{}}
			for ctx.Err() == nil {
				resp, err := client.Get(e.url)
				if err != nil {
					failed.Add(1)
					continue
				}
				_ = resp.Body.Close()
				if asked.Add(1); resp.StatusCode != http.StatusOK {
					failed.Add(1)
				}
			}
		})
	}
	for i := range 50 {
		name := fmt.Sprintf("s%d", i)
		add(name, b)
		run(t, e.client,
			ok(runtime.SetServerWeight("web", name, 200)),
			ok(runtime.SetServerAddress("web", name, a)),
			ok(runtime.SetServerMaxConn("web", name, 100)),
			ok(runtime.SetServerState("web", name, runtime.Drain)))
		before := asked.Load()
		haproxytest.Until(t, "requests go on", func() error {
			if asked.Load() < before+10 {
				return errors.New("too few")
			}
			return nil
		})
		run(t, e.client, ok(runtime.SetServerState("web", name, runtime.Maint)))
	}
	stop()
	load.Wait()
	if failed.Load() != 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), asked.Load())
	}
	servers, err := e.client.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range servers {
		want := runtime.Maint
		if s.Name == "keeps" {
			want = runtime.Ready
		}
		if s.State != want || s.Address != a {
			t.Errorf("server %+v, want %s at %s", s, want, a)
		}
	}
	if len(servers) != 51 {
		t.Errorf("%d servers", len(servers))
	}
	t.Logf("%d requests", asked.Load())
}

func TestAStateOfAServerIsReadAsItWasSet(t *testing.T) {
	e := startEdge(t, "server off 127.0.0.1:1 disabled\nserver on 127.0.0.1:2 weight 7")
	ok := must(t)
	state := func(name string) string {
		servers, err := e.client.Servers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range servers {
			if s.Name == name {
				return s.State
			}
		}
		return ""
	}
	if state("off") != runtime.Maint || state("on") != runtime.Ready {
		t.Fatalf("off is %s, on is %s", state("off"), state("on"))
	}
	for _, want := range []string{runtime.Ready, runtime.Drain, runtime.Maint, runtime.Drain, runtime.Ready} {
		for _, name := range []string{"off", "on"} {
			run(t, e.client, ok(runtime.SetServerState("web", name, want)))
			if got := state(name); got != want {
				t.Errorf("%s is %s, set to %s", name, got, want)
			}
		}
	}
	run(t, e.client, ok(runtime.AddServer("web", "new", "127.0.0.1:3")), ok(runtime.SetServerState("web", "new", runtime.Drain)))
	if got := state("new"); got != runtime.Drain {
		t.Errorf("a server added and drained is %s", got)
	}
}

func TestMapsAreReadChangedAndReplaced(t *testing.T) {
	e := startEdge(t, "")
	ok := must(t)
	run(t, e.client, ok(runtime.AddMap(e.mapFile, "k;x", `v"';\`)), ok(runtime.SetMap(e.mapFile, "a", "1")), ok(runtime.DelMap(e.mapFile, "b")))
	read := func() []runtime.MapEntry {
		t.Helper()
		entries, err := e.client.MapEntries(t.Context(), e.mapFile)
		if err != nil {
			t.Fatal(err)
		}
		return entries
	}
	if diff := cmp.Diff([]runtime.MapEntry{{Key: "a", Value: "1"}, {Key: "k;x", Value: `v"';\`}}, read()); diff != "" {
		t.Error(diff)
	}
	var rows []runtime.MapEntry
	for i := range 2000 {
		rows = append(rows, runtime.MapEntry{Key: fmt.Sprintf("host-%d.example.com/path;%d", i, i), Value: fmt.Sprintf("backend %d", i)})
	}
	if err := e.client.ReplaceMap(t.Context(), e.mapFile, rows); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rows, read()); diff != "" {
		t.Error(diff)
	}
	maps, err := e.client.Maps(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(maps) != 1 || maps[0].File != e.mapFile || maps[0].Entries != 2000 {
		t.Errorf("maps %+v", maps)
	}
	if err := e.client.ReplaceMap(t.Context(), e.mapFile, nil); err != nil {
		t.Fatal(err)
	}
	if got := read(); len(got) != 0 {
		t.Errorf("an emptied map has %v", got)
	}
	if err := e.client.ReplaceMap(t.Context(), "/no/such.map", rows); err == nil {
		t.Error("a map that is not there was replaced")
	}
}

func TestInfoStatsAndCapabilitiesOfTheInstalledHAProxy(t *testing.T) {
	e := startEdge(t, "server a 127.0.0.1:1 disabled")
	info, err := e.client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(info.PID) != e.process.Pid() || info.Description != "generation 7" || info.Stopping {
		t.Errorf("info %+v, pid %s", info, e.process.Pid())
	}
	whole, err := e.client.Process(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if int(*whole.Pid) != info.PID || *whole.Ulimitn == 0 {
		t.Errorf("process %+v", whole)
	}
	stats, err := e.client.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(stats, func(s runtime.Stat) bool {
		return s.Proxy == "web" && s.Server == "a" && strings.HasPrefix(s.Status, "MAINT")
	}) {
		t.Errorf("stats %+v", stats)
	}
	of, err := e.client.BackendStats(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	if len(of) != 2 {
		t.Errorf("stats of web: %+v", of)
	}
	caps, err := e.client.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if caps.PID != info.PID || !caps.AddServer || caps.Version != info.Version {
		t.Errorf("capabilities %+v", caps)
	}
	again, err := e.client.Capabilities(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if again != caps {
		t.Errorf("asked again: %+v", again)
	}
}

func TestNoHAProxyIsAnErrorAndSoIsOneThatDoesNotAnswer(t *testing.T) {
	dir := haproxytest.Dir(t)
	c := runtime.NewClient(filepath.Join(dir, "none.sock"))
	if _, err := c.Exec(t.Context(), []string{"show info"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no socket: %v", err)
	}
	path := filepath.Join(dir, "mute.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if replies, err := runtime.NewClient(path).Exec(ctx, []string{"show info"}); !errors.Is(err, runtime.ErrTruncated) || !errors.Is(err, context.DeadlineExceeded) || len(replies) != 0 {
		t.Errorf("no answer: %v, %v", replies, err)
	}
}
