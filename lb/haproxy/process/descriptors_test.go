package process_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mi-lb/mi-lb/lb/haproxy/process"
)

func TestTheLimitOfOpenFilesIsRaisedAsFarAsItMayBe(t *testing.T) {
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	got, err := process.Descriptors(64)
	if err != nil {
		t.Fatal(err)
	}
	var after unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &after); err != nil {
		t.Fatal(err)
	}
	if uint64(got) != after.Cur || after.Cur != before.Max || after.Max != before.Max {
		t.Errorf("returned %d, limits %+v, were %+v", got, after, before)
	}
}

func TestAHAProxyThatTakesFewConnectionsIsTold(t *testing.T) {
	s := newSite(t)
	_, state := s.start() // its maxconn is 500
	if state.MaxConn != 500 || state.Descriptors < 1000 {
		t.Errorf("state %+v", state)
	}
	if !strings.Contains(s.log.String(), "HAProxy takes few connections") {
		t.Error("nothing was told")
	}
}
