package runtime

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mark = "[6]: 2.6.12\n\n"

func TestAnAnswerCutAnywhereIsNeverTakenForAWholeOne(t *testing.T) {
	cmds := []string{"one", "two", "three"}
	whole := "\n" + mark + "\n" + mark + "[3]: no\n" + mark + "a\n\nb\n\n\n" + mark
	replies, complete := split(whole, cmds, false)
	want := []Reply{{"one", Plain, ""}, {"two", Error, "no"}, {"three", Plain, "a\n\nb"}}
	if diff := cmp.Diff(want, replies); diff != "" || !complete {
		t.Fatalf("complete %t: %s", complete, diff)
	}
	for i := range whole {
		if _, complete := split(whole[:i], cmds, false); complete {
			t.Errorf("%q was taken for complete", whole[:i])
		}
	}
	if _, complete := split(whole+"\n", cmds, false); complete {
		t.Error("an answer with something left over was taken for complete")
	}
}

func TestTextThatIsNotOneCommandIsRefused(t *testing.T) {
	for _, cmd := range []string{
		"", " ", "show info;show stat", "show info\nquit", "a\rb", "a\x00b", `a\`, "a\\\nb", "add map x <<", "a <<b",
		strings.Repeat("x", maxLine),
	} {
		if err := check(cmd); !errors.Is(err, ErrInvalidCommand) {
			t.Errorf("%.40q: %v", cmd, err)
		}
	}
	for _, cmd := range []string{"show info", `add map x a\;b`, `add map x a\<\<b`} {
		if err := check(cmd); err != nil {
			t.Errorf("%q: %v", cmd, err)
		}
	}
}

func TestCommandsAreBuiltOrRefused(t *testing.T) {
	address := netip.MustParseAddrPort
	ok := func(cmd string, err error) func(*testing.T, string) {
		return func(t *testing.T, want string) {
			t.Helper()
			if cmd != want || (err != nil) != (want == "") {
				t.Errorf("got %q, %v; want %q", cmd, err, want)
			}
		}
	}
	ok(AddServer("web", "a:1", "10.0.0.1:80 check"))(t, "add server web/a:1 10.0.0.1:80 check")
	ok(AddServer("web", "a", "10.0.0.1:80;quit"))(t, "")
	ok(AddServer("web", "a/b", "10.0.0.1:80"))(t, "")
	ok(AddServer("", "a", "10.0.0.1:80"))(t, "")
	ok(DelServer("web", "a b"))(t, "")
	ok(EnableHealth("web", "a"))(t, "enable health web/a")
	ok(SetServerAddress("web", "a", address("[::1]:80")))(t, "set server web/a addr ::1 port 80")
	ok(SetServerAddress("web", "a", address("[::ffff:10.0.0.1]:80")))(t, "set server web/a addr 10.0.0.1 port 80")
	ok(SetServerAddress("web", "a", address("10.0.0.1:0")))(t, "")
	ok(SetServerAddress("web", "a", netip.AddrPort{}))(t, "")
	ok(SetServerWeight("web", "a", 256))(t, "set server web/a weight 256")
	ok(SetServerWeight("web", "a", 257))(t, "")
	ok(SetServerState("web", "a", "drain"))(t, "set server web/a state drain")
	ok(SetServerState("web", "a", "ready;quit"))(t, "")
	ok(SetServerMaxConn("web", "a", -1))(t, "")
	ok(AddMap("/x.map", "k", "v w"))(t, `add map /x.map k v\ w`)
	ok(AddMap("/x.map", "k\n", "v"))(t, "")
	ok(DelMap("/x.map", "#k"))(t, `del map /x.map \#k`)
}

func TestProcessesAreRead(t *testing.T) {
	text := `#<PID>          <type>          <reloads>       <uptime>        <version>
15091           master          2 [failed: 1]   0d00h12m50s     2.6.12-1+deb12u4
# workers
20242           worker          0               0d00h00m01s     2.6.12-1+deb12u4
# old workers
20215           worker          1               0d00h00m09s     2.6.12-1+deb12u4
20210           worker          2               0d00h00m19s     2.6.12-1+deb12u4
# programs
`
	got, err := ParseProcesses(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Processes{Master: 15091, Reloads: 2, Failed: 1, Workers: []int{20242}, Old: []int{20215, 20210}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestTheWorkerThatServesOnAfterAReloadThatFailedIsNoOldOne(t *testing.T) {
	text := `#<PID>          <type>          <reloads>       <uptime>        <version>
22631           master          5 [failed: 1]   0d00h00m03s     3.2.26-1
# workers
# old workers
22642           worker          2               0d00h00m03s     3.2.26-1
22600           worker          4               0d00h00m09s     3.2.26-1
`
	got, err := ParseProcesses(text)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Processes{Master: 22631, Reloads: 5, Failed: 1, Workers: []int{22642}, Old: []int{22600}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestAReloadsReplyIsRead(t *testing.T) {
	for text, want := range map[string]ReloadReply{
		"":                               {},
		"\nSuccess=1\n--\n[NOTICE] ok\n": {Answered: true, Success: true, Log: "[NOTICE] ok"},
		"Success=0\n--\n[ALERT] bad\n":   {Answered: true, Log: "[ALERT] bad"},
		"Success=1":                      {Answered: true, Success: true},
	} {
		if got := ParseReload(text); got != want {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestCapabilitiesFollowTheListOfCommandsAndTheRelease(t *testing.T) {
	old := "  add server : x\n  del server : x\n  set server <b>/<s> : x\n  show version : x\n"
	recent := old + "  wait {-h|<delay_ms>} cond [args...] : x\n  add backend <name> : x\n"
	for _, tt := range []struct {
		version, help string
		want          Capabilities
	}{
		{"2.6.12-1+deb12u4", old, Capabilities{AddServer: true}},
		{"2.6.18", old, Capabilities{AddServer: true, DelServer: true}},
		{"2.8.3-1ubuntu", old, Capabilities{AddServer: true, SyncReload: true}},
		{"2.8.16", old, Capabilities{AddServer: true, DelServer: true, SyncReload: true}},
		{"3.1-dev6-2f6f36", recent, Capabilities{AddServer: true, DelServer: true, WaitRemovable: true, ServerCookie: true, AddBackend: true, SyncReload: true}},
		{"2.6.1", "  show version : x\n", Capabilities{}},
	} {
		tt.want.Version, tt.want.PID = tt.version, 7
		got, err := Probe(Info{Version: tt.version, PID: 7}, tt.help)
		if err != nil {
			t.Errorf("%s: %v", tt.version, err)
		}
		if got != tt.want {
			t.Errorf("%s: %+v", tt.version, got)
		}
	}
	if _, err := Probe(Info{Version: "2.6.12"}, "Permission denied"); err == nil {
		t.Error("no list of commands was taken for a HAProxy without commands")
	}
	if _, err := Probe(Info{Version: "nginx"}, old); err == nil {
		t.Error("a version that cannot be read was taken for one")
	}
}

func FuzzSplit(f *testing.F) {
	f.Add("\n"+mark+"\n"+mark, 1, false)
	f.Add("\n"+mark+"[3]: x\n"+mark+"\n\n", 2, true)
	f.Fuzz(func(t *testing.T, answer string, n int, payload bool) {
		cmds := make([]string, 1+(n&7))
		replies, complete := split(answer, cmds, payload)
		if complete != (len(replies) == len(cmds)) && !(len(replies) == len(cmds) && !complete) {
			t.Errorf("%d replies to %d commands, complete: %t", len(replies), len(cmds), complete)
		}
	})
}

func FuzzCommandIsOneLineOfOneCommand(f *testing.F) {
	f.Add("web", "a", "k;v")
	f.Add("w\\", "<<", "\n")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		for _, build := range []func() (string, error){
			func() (string, error) { return Command("set map", a, b, c) },
			func() (string, error) { return AddServer(a, b, c) },
			func() (string, error) { return DelServer(a, b) },
			func() (string, error) { return SetServerState(a, b, c) },
		} {
			cmd, err := build()
			if err != nil {
				continue
			}
			escaped := false
			for i := range len(cmd) {
				if strings.IndexByte("\n\r\x00", cmd[i]) >= 0 || (cmd[i] == ';' && !escaped) {
					t.Fatalf("%q, %q, %q made %q", a, b, c, cmd)
				}
				escaped = cmd[i] == '\\' && !escaped
			}
			if escaped || strings.Contains(cmd, "<<") {
				t.Fatalf("%q, %q, %q made %q", a, b, c, cmd)
			}
		}
	})
}

func FuzzParsers(f *testing.F) {
	f.Add("1\n# be_name srv_name srv_addr srv_port srv_op_state srv_admin_state srv_uweight\nb s 127.0.0.1 80 2 0 1\n")
	f.Add("# pxname,svname,type,status,scur,qcur,stot,econ\nweb,a,2,UP,1,2,3,4\n")
	f.Add("0 (/x.map) pattern entry_cnt=2\n0x12 a b c\n")
	f.Add("Version: 2.6.12\nPid: 7\nUptime_sec: 4\n")
	f.Add("#<PID>\n1 master 0 [failed: 0]\n# workers\n2 worker 0\nSuccess=1\n--\n")
	f.Add("  add server : x\n show version")
	f.Fuzz(func(_ *testing.T, text string) {
		_, _ = ParseServers(text)
		_, _ = ParseStats(text)
		_, _ = ParseMaps(text)
		_, _ = ParseMapEntries(text)
		_, _ = ParseInfo(text)
		_, _ = ParseProcesses(text)
		_ = ParseReload(text)
		_, _ = Probe(Info{Version: text}, text)
		_ = parseReply("", text).Err()
	})
}
