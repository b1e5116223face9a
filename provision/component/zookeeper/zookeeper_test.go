package zookeeper_test

import (
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/component/componenttest"
	"github.com/mi-lb/mi-lb/provision/component/zookeeper"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

const three = `[dc=dc1]
a private_ipv4=10.0.0.1 zk_id=7
b private_ipv4=10.0.0.2 zk_id=2
c private_ipv4=10.0.0.3 zk_id=3
[zookeeper_servers]
a
b
c
[consul_servers:children]
zookeeper_servers
[all:vars]
`

func wanted(t *testing.T, p component.Platform, name string) *desired.Part {
	t.Helper()
	part, problems := zookeeper.New().Desired(p, componenttest.Node(t, p, name))
	if len(problems) > 0 {
		t.Fatalf("problems: %+v", problems)
	}
	return part
}

func TestGolden(t *testing.T) {
	tree := "zookeeper_url=https://mirror.example.com/apache-zookeeper-3.8.4-bin.tar.gz\nzookeeper_sha256=" + strings.Repeat("ab", 32) + "\n"
	for name, c := range map[string]struct {
		variables string
		facts     func(*cluster.Node) *facts.Facts
	}{
		"debian":       {"", componenttest.Debian},
		"debian-other": {"zookeeper_enforce_auth=yes\nzookeeper_quorum_tls=accept\nzookeeper_txn_dir=/txn\nzookeeper_config={'snapCount': 50000}\nzookeeper_package=libzookeeper-java\nzookeeper_listen=10.0.0.1\nzookeeper_java_options=-XX:+UseG1GC\n", componenttest.Debian},
		"redhat":       {tree, componenttest.RedHat},
	} {
		t.Run(name, func(t *testing.T) {
			p := componenttest.With(componenttest.Platform(t, three+c.variables), c.facts)
			componenttest.Golden(t, "testdata/"+name+".golden", componenttest.Render(p, wanted(t, p, "a")))
		})
	}
}

func TestServersAreListedForClientsById(t *testing.T) {
	p := componenttest.Platform(t, three+"zookeeper_client_port=2182\n")
	if got := zookeeper.Servers(p.Cluster.Datacenters[0]); got != "10.0.0.2:2182,10.0.0.3:2182,10.0.0.1:2182" {
		t.Error(got)
	}
}

func TestWhatCannotWorkIsRefused(t *testing.T) {
	for variables, want := range map[string]string{
		"zookeeper_config={'reconfigEnabled': 'true'}":  "not for the inventory to set",
		"zookeeper_config={'server.9': 'x:1:2'}":        "cannot be set this way",
		"zookeeper_heap='512m -Dx'":                     "zookeeper_heap is",
		"zookeeper_quorum_tls=maybe":                    "none of require, prefer",
		"zookeeper_version=\"3.4.13\"":                  "older than 3.5.5",
		"zookeeper_source=image":                        "cannot be installed as image",
		"zookeeper_client_port=0":                       "must be 1 to 65535",
		"zookeeper_listen=1.2.3":                        "not an IPv4 address",
		"zookeeper_java_options='-Dx=\"$(reboot)\"'":    "zookeeper_java_options is",
		"zookeeper_data_dir=../x":                       "not an absolute path",
		"zookeeper_config={'a': \"b\\\\c\"}":            "that zoo.cfg cannot hold",
		"zookeeper_user='root; x'":                      "not the name of a user",
		"zookeeper_peer_port={{ nothing }}":             "cannot be told",
		"zookeeper_config=text":                         "must be a mapping",
		"zookeeper_version=3.8.0\nzookeeper_source=url": "",
	} {
		if want == "" {
			continue
		}
		p := componenttest.Platform(t, three+variables)
		got, problems := zookeeper.New().Desired(p, componenttest.Node(t, p, "a"))
		if got != nil || len(problems) == 0 || !strings.Contains(problems[0].Message, want) || problems[0].Advice == "" {
			t.Errorf("%s: %+v", variables, problems)
		}
	}
	p := componenttest.With(componenttest.Platform(t, three), componenttest.RedHat)
	if _, problems := zookeeper.New().Desired(p, componenttest.Node(t, p, "a")); len(problems) != 1 || !strings.Contains(problems[0].Advice, "zookeeper_url") {
		t.Errorf("%+v", problems)
	}
	p = componenttest.With(componenttest.Platform(t, three), func(n *cluster.Node) *facts.Facts {
		f := componenttest.Debian(n)
		f.System.ID, f.System.Version = "ubuntu", "22.04"
		return f
	})
	if _, problems := zookeeper.New().Desired(p, componenttest.Node(t, p, "a")); len(problems) != 1 || !strings.Contains(problems[0].Message, "too old") {
		t.Errorf("%+v", problems)
	}
}

func TestChangesThatLoseAQuorumOnTheWayAreRefused(t *testing.T) {
	// found are the facts of a machine that was set up by an earlier inventory.
	found := func(t *testing.T, earlier string) *facts.Facts {
		p := componenttest.Platform(t, earlier)
		n := componenttest.Node(t, p, "a")
		f := componenttest.Debian(n)
		for _, file := range wanted(t, p, "a").Files {
			f.Files[file.Path] = facts.File{Content: file.Bytes(), SHA256: "x"}
		}
		delete(f.Files, "/var/lib/zookeeper/myid")
		f.Files["/var/lib/zookeeper/version-2"] = facts.File{Directory: true}
		return f
	}
	one := strings.NewReplacer("b\n", "", "c\n", "").Replace(three)
	two := strings.ReplaceAll(three, "c\n", "") + "allow_even_control=yes\n"
	for name, c := range map[string]struct {
		earlier, now string
		code         string
	}{
		"the same":            {three, three, ""},
		"1 to 3":              {one, three, "zookeeper-members"},
		"1 to 2":              {one, two, ""},
		"2 to 3":              {two, three, ""},
		"3 to 1":              {three, one, "zookeeper-members"},
		"one replaced":        {three, strings.ReplaceAll(three, "10.0.0.3", "10.0.0.4"), ""},
		"two replaced":        {three, strings.NewReplacer("10.0.0.3", "10.0.0.4", "10.0.0.2", "10.0.0.5").Replace(three), "zookeeper-members"},
		"TLS at once":         {three + "zookeeper_quorum_tls=off\n", three, "zookeeper-tls"},
		"TLS in its steps":    {three + "zookeeper_quorum_tls=prefer\n", three, ""},
		"first step of TLS":   {three + "zookeeper_quorum_tls=off\n", three + "zookeeper_quorum_tls=accept\n", ""},
		"alone, TLS at once":  {one + "zookeeper_quorum_tls=off\n", one, ""},
		"a port of the peers": {three, three + "zookeeper_peer_port=2889\n", "zookeeper-members"},
	} {
		p := componenttest.Platform(t, c.now)
		p.Facts["a"] = found(t, c.earlier)
		problems := zookeeper.New().(component.Checker).Check(p, componenttest.Node(t, p, "a"))
		switch {
		case c.code == "" && len(problems) > 0, c.code != "" && (len(problems) != 1 || problems[0].Code != c.code):
			t.Errorf("%s: %+v", name, problems)
		}
	}
	p := componenttest.Platform(t, three)
	p.Facts["a"] = found(t, three)
	p.Facts["a"].Files["/var/lib/zookeeper/myid"] = facts.File{SHA256: strings.Repeat("0", 64)}
	if problems := zookeeper.New().(component.Checker).Check(p, componenttest.Node(t, p, "a")); len(problems) != 1 || problems[0].Code != "zookeeper-id" {
		t.Errorf("another id: %+v", problems)
	}
	p.Facts["a"] = found(t, three)
	p.Facts["a"].Files["/etc/mi-lb/zookeeper/zoo.cfg"] = facts.File{Content: "nonsense\n", SHA256: "x"}
	if problems := zookeeper.New().(component.Checker).Check(p, componenttest.Node(t, p, "a")); len(problems) != 0 {
		t.Errorf("a configuration that is none: %+v", problems)
	}
	p.Facts["a"] = found(t, three)
	// sha256 of "7", as whoever wrote it by hand may have left it.
	p.Facts["a"].Files["/var/lib/zookeeper/myid"] = facts.File{SHA256: "7902699be42c8a8e46fbbb4501726517e86b22c56a189f7625a6da49081b2451"}
	if problems := zookeeper.New().(component.Checker).Check(p, componenttest.Node(t, p, "a")); len(problems) != 0 {
		t.Errorf("the same id: %+v", problems)
	}
}

func TestOnlyAnEnsembleWithoutQuorumMayBeginWithNothing(t *testing.T) {
	initializes := func(p component.Platform, name string) bool {
		for _, f := range wanted(t, p, name).Files {
			if strings.HasSuffix(f.Path, "/initialize") {
				return true
			}
		}
		return false
	}
	p := componenttest.Platform(t, three)
	for i, with := range []string{"", "a", "b"} {
		if with != "" {
			p.Facts[with].Files["/var/lib/zookeeper/version-2"] = facts.File{Directory: true}
		}
		if got, want := initializes(p, "c"), i < 2; got != want {
			t.Errorf("with data on %d machines: %v", i, got)
		}
	}
	p.Facts["b"].Files["/var/lib/zookeeper/version-2"] = facts.File{Directory: true, Empty: true}
	if !initializes(p, "c") {
		t.Error("an empty directory counts as data")
	}
}

func TestConfigurationsAreComparedByMeaning(t *testing.T) {
	p := componenttest.Platform(t, three)
	for _, f := range wanted(t, p, "a").Files {
		if !strings.HasSuffix(f.Path, "zoo.cfg") {
			continue
		}
		lines := strings.Split(strings.TrimSpace(f.Content), "\n")
		for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
			lines[i], lines[j] = lines[j], lines[i]
		}
		if !f.Same(strings.Join(lines, "\r\n"), f.Content) {
			t.Error("another order is another meaning")
		}
		if f.Same(f.Content+"maxSessionTimeout=1\n", f.Content) {
			t.Error("another key has no meaning")
		}
	}
}
