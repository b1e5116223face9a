package process

import (
	"log/slog"
	"testing"
)

func TestMessagesAreRead(t *testing.T) {
	for line, want := range map[string]Message{
		"[ALERT]    (24524) : config : parsing [h.cfg:21] : unknown keyword 'bogus' in 'backend' section\n": {Level: slog.LevelError, PID: 24524, File: "h.cfg", Line: 21, Text: "config : parsing [h.cfg:21] : unknown keyword 'bogus' in 'backend' section"},
		"[ALERT]    (1) : Binding [/etc/h.cfg:11] for frontend f: cannot bind socket":                       {Level: slog.LevelError, PID: 1, File: "/etc/h.cfg", Line: 11, Text: "Binding [/etc/h.cfg:11] for frontend f: cannot bind socket"},
		"[WARNING]  (2) : Server b/a is UP":                                                                 {Level: slog.LevelWarn, PID: 2, Text: "Server b/a is UP"},
		"[NOTICE]   (3) : New worker forked":                                                                {Level: slog.LevelInfo, PID: 3, Text: "New worker forked"},
		"  list continued":                                                                                  {Level: slog.LevelInfo, Text: "  list continued"},
		"[ALERT] (x) : y":                                                                                   {Level: slog.LevelError, Text: "(x) : y"},
	} {
		if got := ParseMessage(line); got != want {
			t.Errorf("%q:\ngot  %+v\nwant %+v", line, got, want)
		}
	}
}

func TestACommandLineTellsSocketsFilesAndMode(t *testing.T) {
	sockets, files, mode := commandLine([]string{"haproxy", "-sf", "12", "-x", "/s", "-Ws", "-f", "/a.cfg", "/b.cfg", "-p", "/pid", "-S", "/m.sock,mode,600", "-f", "/c.cfg", "--", "/d.cfg"})
	if len(sockets) != 1 || sockets[0] != "/m.sock" || len(files) != 4 || files[3] != "/d.cfg" || !mode {
		t.Errorf("%q, %q, %t", sockets, files, mode)
	}
	if _, _, mode := commandLine([]string{"haproxy", "-f", "/a.cfg"}); mode {
		t.Error("not a master")
	}
}

func FuzzParseMessage(f *testing.F) {
	f.Add("[ALERT]    (1) : parsing [h.cfg:21] : x")
	f.Fuzz(func(t *testing.T, line string) {
		if m := ParseMessage(line); m.Line < 0 || (m.Line > 0) != (m.File != "") && m.Line != 0 {
			t.Errorf("%q: %+v", line, m)
		}
	})
}
