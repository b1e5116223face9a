package componenttest_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/redact"
	"github.com/mi-lb/mi-lb/provision/ssh"
)

const oneNode = `
[dc=dc1]
a private_ipv4=127.0.1.1
[consul_servers]
a
`

func TestThisMachineIsReachedAsAnyOther(t *testing.T) {
	p := componenttest.Platform(t, oneNode)
	host, err := componenttest.Here(t, p).Host("a")
	if err != nil {
		t.Fatal(err)
	}
	r, err := host.Run(t.Context(), ssh.Command{Line: "cat; echo $((1+1))", Stdin: strings.NewReader("x ")})
	if err != nil || string(r.Stdout) != "x 2\n" {
		t.Errorf("%q, %v", r.Stdout, err)
	}
	var exit *ssh.ExitError
	if _, err := host.Run(t.Context(), ssh.Command{Line: "exit 3"}); !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("%v", err)
	}
}

func TestSecretsAreNamedWhereAPartIsRendered(t *testing.T) {
	p := componenttest.Platform(t, oneNode)
	part := &desired.Part{Component: "x", Files: []desired.File{
		{Path: "/a", Mode: 0o600, Secret: redact.New("key=" + p.Secrets.GossipKey().Reveal())},
		{Path: "/b", Mode: 0o644, Content: p.Secrets.NodePair("a").Certificate},
		{Path: "/c", Mode: 0o644, Content: p.Secrets.ZooKeeper("dc1", "super").Digest()},
	}}
	got := componenttest.Render(p, part)
	for _, want := range []string{"key=<consul/gossip-key>", "<pki/node/a/certificate>", "super:<digest of zookeeper/dc1/super>"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

func TestAUnitRunsAsItSays(t *testing.T) {
	dir := t.TempDir()
	part := &desired.Part{Files: []desired.File{
		{Path: dir + "/env", Mode: 0o600, Content: "# x\nWORDS=one two\n"},
		{Path: dir + "/data/once", Mode: 0o600, Content: "1", Once: true, OnlyWith: dir + "/data"},
	}}
	if changed := componenttest.Install(t, part, dir); len(changed) != 2 {
		t.Errorf("changed: %v", changed)
	}
	if err := os.Remove(filepath.Join(dir, "data/once")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data/other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if changed := componenttest.Install(t, part, dir); len(changed) != 0 {
		t.Errorf("changed again: %v", changed)
	}
	p := componenttest.Start(t, desired.Unit{Name: "x", Content: "[Service]\nEnvironmentFile=" + dir + "/env\nExecStartPre=/bin/touch " + dir +
		"/pre\nExecStart=/usr/bin/printf %s. $WORDS ${WORDS}\n"})
	componenttest.Eventually(t, time.Minute, "its output", func(context.Context) error {
		if got := p.Output(); got != "one.two.one two." {
			return errors.New(got)
		}
		return nil
	})
	if _, err := os.Stat(dir + "/pre"); err != nil {
		t.Error(err)
	}
	p = componenttest.Start(t, desired.Unit{Name: "y", Content: "[Service]\nEnvironment=TIME=1000\nExecStart=/bin/sleep ${TIME}"})
	if !p.Running() {
		t.Error("it does not run")
	}
	p.Stop()
	if p.Running() {
		t.Error("it runs")
	}
}

func TestPortsAreDifferent(t *testing.T) {
	all := componenttest.Ports(t, 20, "127.0.0.1", "127.0.1.1")
	slices.Sort(all)
	if len(slices.Compact(all)) != 20 {
		t.Errorf("%v", all)
	}
	componenttest.Eventually(t, time.Minute, "nothing", func(context.Context) error { return nil })
}
