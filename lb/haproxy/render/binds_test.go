package render

import (
	"slices"
	"testing"
)

func TestBindsAreTheAddressesThatListenersHave(t *testing.T) {
	files := Files{ConfigFile: []byte(`global
    stats socket /run/h.sock
frontend a
    bind 10.0.0.1:80 ssl crt '/a b'
    bind :81,[::]:81
    bind *:82
    bind "ipv4@127.0.0.1:90-92"
    bind abns@x
    bind unix@/x
    bind eth0:80
    bind ${HOST}:80
    bind 10.0.0.1:99999
    bind
    # bind 10.0.0.1:83
listen b
    bind ipv6@[fd00::1]:84
`)}
	var got []string
	for a := range Binds(files) {
		got = append(got, a.String())
	}
	want := []string{"10.0.0.1:80", "0.0.0.0:81", "[::]:81", "0.0.0.0:82", "127.0.0.1:90", "127.0.0.1:91", "127.0.0.1:92", "[fd00::1]:84"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzBinds(f *testing.F) {
	f.Add("frontend a\n bind 127.0.0.1:90-92,[::]:1 x\n")
	f.Fuzz(func(t *testing.T, config string) {
		n := 0
		for a := range Binds(Files{ConfigFile: []byte(config)}) {
			if !a.IsValid() || a.Port() == 0 {
				t.Fatalf("%q binds %s", config, a)
			}
			if n++; n > 1<<18 {
				return
			}
		}
	})
}
