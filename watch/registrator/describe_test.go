package registrator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The host of the examples in gliderlabs/registrator's documentation.
var examplePolicy = Policy{Host: "hostname", Address: "192.168.1.102", DockerHealth: true}

// dockerRun is the container that such a command line makes. Ports published
// without a host port get 32768 and up.
func dockerRun(t *testing.T, line string) *Container {
	t.Helper()
	words := splitLine(line)
	c := &Container{
		ID: strings.Repeat("c0ffee12", 8), Name: "/c", Created: "2026-01-01T00:00:00Z",
		State:           State{Status: "running", Running: true, StartedAt: "2026-01-01T00:00:01Z"},
		Config:          Config{Labels: map[string]string{}, ExposedPorts: map[string]struct{}{}},
		HostConfig:      HostConfig{NetworkMode: "default"},
		NetworkSettings: NetworkSettings{Ports: map[string][]PortBinding{}, Networks: map[string]Network{}},
	}
	next := 32768
	var published []string
	for len(words) > 0 && strings.HasPrefix(words[0], "-") {
		flag, value, inline := strings.Cut(words[0], "=")
		words = words[1:]
		if flag == "-d" {
			continue
		}
		if !inline {
			value, words = words[0], words[1:]
		}
		switch flag {
		case "--name":
			c.Name = "/" + value
		case "--id":
			c.ID = strings.Repeat(value, 64)[:64]
		case "--created":
			c.Created = value
		case "--net", "--network":
			c.HostConfig.NetworkMode = value
		case "-e":
			c.Config.Env = append(c.Config.Env, value)
		case "-l":
			key, text, _ := strings.Cut(value, "=")
			c.Config.Labels[key] = text
		case "-p":
			published = append(published, value)
		case "--expose":
			c.Config.ExposedPorts[withProtocol(value)] = struct{}{}
		default:
			t.Fatalf("dockerRun does not know %s", flag)
		}
	}
	c.Config.Image = words[0]
	for _, p := range published {
		p, protocol, _ := strings.Cut(p, "/")
		if protocol == "" {
			protocol = "tcp"
		}
		parts := strings.Split(p, ":")
		key := parts[len(parts)-1] + "/" + protocol
		c.Config.ExposedPorts[key] = struct{}{}
		if c.HostConfig.NetworkMode == "host" {
			continue // Docker ignores it
		}
		binding := PortBinding{HostIP: "0.0.0.0"}
		if len(parts) == 3 {
			binding.HostIP = parts[0]
		}
		if len(parts) > 1 {
			binding.HostPort = parts[len(parts)-2]
		}
		if binding.HostPort == "" {
			binding.HostPort = fmt.Sprint(next)
			next++
		}
		c.NetworkSettings.Ports[key] = append(c.NetworkSettings.Ports[key], binding)
	}
	switch mode := c.HostConfig.NetworkMode; {
	case mode == "host" || mode == "none" || strings.HasPrefix(mode, "container:"):
	case mode == "default":
		c.NetworkSettings.IPAddress = "172.17.0.2"
		c.NetworkSettings.Networks["bridge"] = Network{IPAddress: "172.17.0.2"}
	default:
		c.NetworkSettings.Networks[mode] = Network{IPAddress: "10.9.0.2"}
	}
	if mode := c.HostConfig.NetworkMode; mode != "host" && mode != "macvlan" {
		for key := range c.Config.ExposedPorts {
			if _, ok := c.NetworkSettings.Ports[key]; !ok {
				c.NetworkSettings.Ports[key] = nil
			}
		}
	}
	return c
}

func withProtocol(port string) string {
	if strings.Contains(port, "/") {
		return port
	}
	return port + "/tcp"
}

// splitLine splits a command line at spaces that are not in double quotes.
func splitLine(line string) []string {
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for _, r := range line + " " {
		switch {
		case r == '"':
			quoted, any = !quoted, true
		case r == ' ' && !quoted:
			if any {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteRune(r)
			any = true
		}
	}
	return words
}

// sentence is a service as one line: id, name, address:port, tags and metadata,
// without the mark.
func sentence(s *Service) string {
	r := s.Registration
	line := fmt.Sprintf("%s is %s at %s:%d", r.ID, r.Name, r.Address, r.Port)
	if len(r.Tags) > 0 {
		line += " tags " + strings.Join(r.Tags, "|")
	}
	for _, key := range slices.Sorted(maps.Keys(r.Meta)) {
		if key != markKey {
			line += " " + key + "=" + r.Meta[key]
		}
	}
	return line
}

func sentences(services []*Service) []string {
	var lines []string
	for _, s := range services {
		lines = append(lines, sentence(s))
	}
	return lines
}

func nobody(string) *Container { return nil }

func TestConventionsOfRegistratorsDocumentation(t *testing.T) {
	with := func(change func(*Policy)) Policy {
		p := examplePolicy
		change(&p)
		return p
	}
	tests := []struct {
		name   string
		policy Policy
		run    string
		want   []string
	}{
		// Examples, word for word.
		{"single service with defaults", examplePolicy,
			`-d --name redis.0 -p 10000:6379 progrium/redis`,
			[]string{"hostname:redis.0:6379 is redis at 192.168.1.102:10000"}},
		{"single service with metadata", examplePolicy,
			`-d --name redis.0 -p 10000:6379 -e "SERVICE_NAME=db" -e "SERVICE_TAGS=master,backups" -e "SERVICE_REGION=us2" progrium/redis`,
			[]string{"hostname:redis.0:6379 is db at 192.168.1.102:10000 tags master|backups region=us2"}},
		{"comma escaped by a backslash", examplePolicy,
			`-d --name redis.0 -p 10000:6379 -e "SERVICE_NAME=db" -e "SERVICE_TAGS=/(;\,:-_)/" -e "SERVICE_REGION=us2" progrium/redis`,
			[]string{"hostname:redis.0:6379 is db at 192.168.1.102:10000 tags /(;,:-_)/ region=us2"}},
		{"multiple services with defaults", examplePolicy,
			`-d --name nginx.0 -p 4443:443 -p 8000:80 progrium/nginx`,
			[]string{"hostname:nginx.0:80 is nginx-80 at 192.168.1.102:8000", "hostname:nginx.0:443 is nginx-443 at 192.168.1.102:4443"}},
		{"multiple services with metadata", examplePolicy,
			`-d --name nginx.0 -p 4443:443 -p 8000:80 -e "SERVICE_443_NAME=https" -e "SERVICE_443_ID=https.12345" -e "SERVICE_443_SNI=enabled" -e "SERVICE_80_NAME=http" -e "SERVICE_TAGS=www" progrium/nginx`,
			[]string{"hostname:nginx.0:80 is http at 192.168.1.102:8000 tags www", "https.12345 is https at 192.168.1.102:4443 tags www sni=enabled"}},
		{"labels to define metadata", examplePolicy,
			`-d --name redis.0 -p 10000:6379 -l "SERVICE_NAME=db" -l "SERVICE_TAGS=master,backups" -l "SERVICE_REGION=us2" dockerfile/redis`,
			[]string{"hostname:redis.0:6379 is db at 192.168.1.102:10000 tags master|backups region=us2"}},

		// Detecting services.
		{"only published ports", examplePolicy, `--expose 80 --expose 443 -p 443 nginx`,
			[]string{"hostname:c:443 is nginx at 192.168.1.102:32768"}},
		{"nothing published", examplePolicy, `--expose 80 nginx`, nil},
		{"host network registers what is published or exposed", examplePolicy, `--net=host -p 8080:8080 -p 8443:8443 web`,
			[]string{"hostname:c:8080 is web-8080 at 192.168.1.102:8080", "hostname:c:8443 is web-8443 at 192.168.1.102:8443"}},
		{"-internal registers exposed ports at the container's address", with(func(p *Policy) { p.Internal = true }), `--expose=8080 web`,
			[]string{"hostname:c:8080 is web at 172.17.0.2:8080"}},
		{"SERVICE_IGNORE as variable", examplePolicy, `-p 80:80 -e SERVICE_IGNORE=true web`, nil},
		{"SERVICE_IGNORE as label", examplePolicy, `-p 80:80 -l SERVICE_IGNORE=1 web`, nil},
		{"SERVICE_<port>_IGNORE leaves the other, which is still one of several", examplePolicy, `-p 80:80 -p 443:443 -e SERVICE_443_IGNORE=true web`,
			[]string{"hostname:c:80 is web-80 at 192.168.1.102:80"}},
		{"SERVICE_CHECK_* alone is no reason to register", examplePolicy, `-e SERVICE_CHECK_HTTP=/ web`, nil},

		// Names.
		{"image without repository and tag", examplePolicy, `-p 80:80 gliderlabs/foobar:1.2`, []string{"hostname:c:80 is foobar at 192.168.1.102:80"}},
		{"image of a registry with a port", examplePolicy, `-p 80:80 registry:5000/team/foobar`, []string{"hostname:c:80 is foobar at 192.168.1.102:80"}},
		{"image with a digest", examplePolicy, `-p 80:80 foobar@sha256:0123`, []string{"hostname:c:80 is foobar at 192.168.1.102:80"}},
		{"SERVICE_NAME with several ports gets the port", examplePolicy, `-p 80:80 -p 443:443 -e SERVICE_NAME=web nginx`,
			[]string{"hostname:c:80 is web-80 at 192.168.1.102:80", "hostname:c:443 is web-443 at 192.168.1.102:443"}},
		{"SERVICE_<port>_NAME does not", examplePolicy, `-p 80:80 -p 443:443 -e SERVICE_NAME=web -e SERVICE_80_NAME=plain nginx`,
			[]string{"hostname:c:80 is plain at 192.168.1.102:80", "hostname:c:443 is web-443 at 192.168.1.102:443"}},
		{"an empty SERVICE_NAME is none", examplePolicy, `-p 80:80 -e SERVICE_NAME= nginx`, []string{"hostname:c:80 is nginx at 192.168.1.102:80"}},
		{"-explicit without a name", with(func(p *Policy) { p.Explicit = true }), `-p 80:80 nginx`, nil},
		{"-explicit with a name", with(func(p *Policy) { p.Explicit = true }), `-p 80:80 -l SERVICE_NAME=web nginx`, []string{"hostname:c:80 is web at 192.168.1.102:80"}},
		{"-require-label without it", with(func(p *Policy) { p.RequireLabel = true }), `-p 80:80 nginx`, nil},
		{"-require-label with it", with(func(p *Policy) { p.RequireLabel = true }), `-p 80:80 -l SERVICE_REGISTER=true nginx`,
			[]string{"hostname:c:80 is nginx at 192.168.1.102:80 register=true"}},

		// Ids.
		{"udp in the id and the tags", examplePolicy, `-p 53:53/udp dns`, []string{"hostname:c:53:udp is dns at 192.168.1.102:53 tags udp"}},
		{"tcp and udp on one port", examplePolicy, `-p 53:53 -p 53:53/udp dns`,
			[]string{"hostname:c:53 is dns-53 at 192.168.1.102:53", "hostname:c:53:udp is dns-53 at 192.168.1.102:53 tags udp"}},
		{"SERVICE_ID", examplePolicy, `-p 80:80 -e SERVICE_ID=mine web`, []string{"mine is web at 192.168.1.102:80"}},

		// Metadata.
		{"the environment wins over labels", examplePolicy, `-p 80:80 -l SERVICE_NAME=label -e SERVICE_NAME=variable web`,
			[]string{"hostname:c:80 is variable at 192.168.1.102:80"}},
		{"the port's wins over the general", examplePolicy, `-p 80:80 -e SERVICE_REGION=all -e SERVICE_80_REGION=this -e SERVICE_81_REGION=other web`,
			[]string{"hostname:c:80 is web at 192.168.1.102:80 region=this"}},
		{"keys in lower case", examplePolicy, `-p 80:80 -e SERVICE_My_Key=V web`, []string{"hostname:c:80 is web at 192.168.1.102:80 my_key=V"}},
		{"empty tags are none", examplePolicy, `-p 80:80 -e SERVICE_TAGS=,a,,b, web`, []string{"hostname:c:80 is web at 192.168.1.102:80 tags a|b"}},
		{"checks are metadata too", examplePolicy, `-p 80:80 -e SERVICE_CHECK_HTTP=/up web`,
			[]string{"hostname:c:80 is web at 192.168.1.102:80 check_http=/up"}},
		{"a template of the container's is not evaluated", examplePolicy, `-p 80:80 -e SERVICE_TAGS={{.ID}} web`,
			[]string{"hostname:c:80 is web at 192.168.1.102:80 tags {{.ID}}"}},

		// Address.
		{"a binding's own address", examplePolicy, `-p 10.0.0.5:8080:80 web`, []string{"hostname:c:80 is web at 10.0.0.5:8080"}},
		{"-ip overrides it", with(func(p *Policy) { p.Address, p.ForceAddress = "10.1.1.1", true }), `-p 10.0.0.5:8080:80 web`,
			[]string{"hostname:c:80 is web at 10.1.1.1:8080"}},
		{"-useIpFromLabel", with(func(p *Policy) { p.AddressLabel = "ip" }), `-p 8080:80 -l ip=10.2.2.2 web`, []string{"hostname:c:80 is web at 10.2.2.2:8080"}},
		{"-useIpFromLabel with a prefix length", with(func(p *Policy) { p.AddressLabel = "ip" }), `-p 8080:80 -l ip=10.2.2.2/24 web`,
			[]string{"hostname:c:80 is web at 10.2.2.2:8080"}},

		// Better than there: addresses that can be reached.
		{"user-defined network, published", examplePolicy, `--net=own -p 8080:80 web`, []string{"hostname:c:80 is web at 192.168.1.102:8080"}},
		{"user-defined network, -internal", with(func(p *Policy) { p.Internal = true }), `--net=own -p 8080:80 web`, []string{"hostname:c:80 is web at 10.9.0.2:80"}},
		{"a network that does not publish", examplePolicy, `--net=macvlan --expose 80 web`, []string{"hostname:c:80 is web at 10.9.0.2:80"}},
		{"no network", examplePolicy, `--net=none --expose 80 web`, nil},

		// Marathon.
		{"the app's name", with(func(p *Policy) { p.MarathonNames = true }), `-p 31000:8080 -e MARATHON_APP_ID=/webserver centos`,
			[]string{"hostname:c:8080 is webserver at 192.168.1.102:31000"}},
		{"the app's name in a group", with(func(p *Policy) { p.MarathonNames = true }), `-p 31000:8080 -e MARATHON_APP_ID=/shop/Web centos`,
			[]string{"hostname:c:8080 is shop-web at 192.168.1.102:31000"}},
		{"SERVICE_NAME wins over the app's name", with(func(p *Policy) { p.MarathonNames = true }), `-p 31000:8080 -e MARATHON_APP_ID=/web -e SERVICE_NAME=mine centos`,
			[]string{"hostname:c:8080 is mine at 192.168.1.102:31000"}},
		{"no app, no app's name", with(func(p *Policy) { p.MarathonNames = true }), `-p 31000:8080 centos`, []string{"hostname:c:8080 is centos at 192.168.1.102:31000"}},
		{"without the flag the image's", examplePolicy, `-p 31000:8080 -e MARATHON_APP_ID=/webserver centos`,
			[]string{"hostname:c:8080 is centos at 192.168.1.102:31000"}},
		{"a host-networked task's ports, not those exposed", examplePolicy,
			`--name mesos-1 --net=host --expose 80 -e MARATHON_APP_ID=/web -e PORT0=31005 -e PORT=31005 -e PORTS=31005 nginx`,
			[]string{"hostname:mesos-1:31005 is nginx at 192.168.1.102:31005"}},
		{"several, told apart by what the app asked for", examplePolicy,
			`--name mesos-1 --net=host -e MARATHON_APP_ID=/web -e PORTS=31005,31009 -e PORT_10000=31005 -e PORT_10001=31009 -e SERVICE_10001_NAME=admin -e SERVICE_31005_TAGS=a nginx`,
			[]string{"hostname:mesos-1:31005 is nginx-10000 at 192.168.1.102:31005 tags a", "hostname:mesos-1:31009 is admin at 192.168.1.102:31009"}},
		{"several, told apart by their index", examplePolicy, `--name mesos-1 --net=host -e MESOS_TASK_ID=t -e PORT0=31005 -e PORT1=31009 nginx`,
			[]string{"hostname:mesos-1:31005 is nginx-0 at 192.168.1.102:31005", "hostname:mesos-1:31009 is nginx-1 at 192.168.1.102:31009"}},
		{"a task without ports has those exposed", examplePolicy, `--net=host --expose 80 -e MARATHON_APP_ID=/web nginx`,
			[]string{"hostname:c:80 is nginx at 192.168.1.102:80"}},
		{"PORT0 of no task means nothing", examplePolicy, `--net=host --expose 80 -e PORT0=31005 nginx`,
			[]string{"hostname:c:80 is nginx at 192.168.1.102:80"}},
		{"a bridged task's published ports", examplePolicy, `-p 31005:80 -e MARATHON_APP_ID=/web -e PORT0=31005 -e PORT_80=31005 nginx`,
			[]string{"hostname:c:80 is nginx at 192.168.1.102:31005"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Describe(test.policy, Observed{Container: dockerRun(t, test.run)}, nobody)
			if diff := cmp.Diff(test.want, sentences(d.Services)); diff != "" {
				t.Errorf("docker run %s\n%s", test.run, diff)
			}
			if len(d.Findings) > 0 {
				t.Errorf("findings: %v", d.Findings)
			}
		})
	}
}

func TestAContainerInAnothersNetworkIsReachedThroughIt(t *testing.T) {
	main := dockerRun(t, `--name main --net=own -p 8080:80 main`)
	host := dockerRun(t, `--name host --net=host main`)
	peer := func(id string) *Container {
		return map[string]*Container{"aaaa": main, "bbbb": host}[id]
	}
	tests := []struct{ name, run, want string }{
		{"where the other publishes the port", `--name side --net=container:aaaa --expose 80 side`, "hostname:side:80 is side at 192.168.1.102:8080"},
		{"else at the other's address", `--name side --net=container:aaaa --expose 81 side`, "hostname:side:81 is side at 10.9.0.2:81"},
		{"in the host's network", `--name side --net=container:bbbb --expose 81 side`, "hostname:side:81 is side at 192.168.1.102:81"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := Describe(examplePolicy, Observed{Container: dockerRun(t, test.run)}, peer)
			if diff := cmp.Diff([]string{test.want}, sentences(d.Services)); diff != "" {
				t.Error(diff)
			}
		})
	}
	d := Describe(examplePolicy, Observed{Container: dockerRun(t, `--net=container:gone --expose 80 side`)}, peer)
	if len(d.Services) != 0 || len(d.Findings) != 1 || d.Findings[0].Code != "network-container-unknown" {
		t.Errorf("a network of a container that is gone: %v, %v", sentences(d.Services), d.Findings)
	}
}

func TestContainersThatDoNotRunAskForNothing(t *testing.T) {
	tests := []struct {
		name  string
		state State
		keep  bool
	}{
		{"ended well", State{Status: "exited"}, false},
		{"ended with an error", State{Status: "exited", ExitCode: 1}, true},
		{"ended by a signal", State{Status: "exited", ExitCode: 143}, false},
		{"about to be started again", State{Status: "restarting", Running: true, Restarting: true, ExitCode: 1}, false},
		{"created", State{Status: "created"}, false},
	}
	onSuccess := examplePolicy
	onSuccess.KeepFailed = true
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dockerRun(t, `-p 80:80 web`)
			c.State = test.state
			if d := Describe(examplePolicy, Observed{Container: c}, nobody); len(d.Services) > 0 || d.Keep {
				t.Errorf("-deregister always: %d services, keep %t", len(d.Services), d.Keep)
			}
			if d := Describe(onSuccess, Observed{Container: c}, nobody); len(d.Services) > 0 || d.Keep != test.keep {
				t.Errorf("-deregister on-success: %d services, keep %t, want %t", len(d.Services), d.Keep, test.keep)
			}
		})
	}
}

func TestAContainerBeingStoppedOrPausedIsInMaintenance(t *testing.T) {
	c := dockerRun(t, `-p 80:80 web`)
	stopping := Describe(examplePolicy, Observed{Container: c, Stopping: true}, nobody).Services[0]
	if want := "mi-lb registrator: container c0ffee12c0ff, started 2026-01-01T00:00:01Z, is being stopped"; stopping.Maintenance != want {
		t.Errorf("stopping: %q, want %q", stopping.Maintenance, want)
	}
	c.State.Paused = true
	if paused := Describe(examplePolicy, Observed{Container: c}, nobody).Services[0]; !strings.HasSuffix(paused.Maintenance, "is paused") {
		t.Errorf("paused: %q", paused.Maintenance)
	}
}

func TestSignalsThatStopAContainer(t *testing.T) {
	tests := []struct {
		signal, stopSignal string
		want               bool
	}{
		{"15", "", true}, {"9", "", true}, {"SIGTERM", "", true}, {"term", "", true},
		{"1", "", false}, {"10", "", false}, {"", "", false}, {"nonsense", "", false},
		{"3", "", false}, {"3", "SIGQUIT", true}, {"3", "QUIT", true}, {"2", "2", true}, {"15", "SIGQUIT", true},
	}
	for _, test := range tests {
		if got := stops(&Container{Config: Config{StopSignal: test.stopSignal}}, test.signal); got != test.want {
			t.Errorf("signal %q to a container with stop signal %q: %t, want %t", test.signal, test.stopSignal, got, test.want)
		}
	}
}
