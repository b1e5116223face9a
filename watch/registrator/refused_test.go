package registrator

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/consul/api"
)

func TestBadInputIsRefusedAloneAndSaid(t *testing.T) {
	long := strings.Repeat("x", 64<<10)
	forced := examplePolicy
	forced.Address, forced.ForceAddress = "10.1.1.1", true
	labelled := examplePolicy
	labelled.AddressLabel = "ip"
	plainService := "hostname:c:80 is web at 192.168.1.102:80"
	tests := []struct {
		name   string
		policy Policy
		run    func(c *Container)
		want   []string // services
		code   string   // of the one finding
		key    string
	}{
		{"a newline in a tag", examplePolicy, env("SERVICE_TAGS=a\nserver evil 6.6.6.6,b"), []string{plainService + " tags b"}, "invalid-tag", "SERVICE_TAGS"},
		{"64 kB in a tag", examplePolicy, env("SERVICE_TAGS=" + long), []string{plainService}, "invalid-tag", "SERVICE_TAGS"},
		{"64 kB of tags", examplePolicy, env("SERVICE_TAGS=" + numbers(10000)), nil, "too-many-tags", "SERVICE_TAGS"},
		{"a newline in metadata", examplePolicy, env("SERVICE_REGION=a\nb"), []string{plainService}, "invalid-metadata", "SERVICE_REGION"},
		{"64 kB in metadata", examplePolicy, env("SERVICE_REGION=" + long), []string{plainService}, "invalid-metadata", "SERVICE_REGION"},
		{"not UTF-8", examplePolicy, env("SERVICE_REGION=\xff\xfe"), []string{plainService}, "invalid-metadata", "SERVICE_REGION"},
		{"a key that Consul does not take", examplePolicy, env("SERVICE_mi-lb.host=a"), []string{plainService}, "invalid-metadata", "SERVICE_mi-lb.host"},
		{"a key that Consul keeps for itself", examplePolicy, env("SERVICE_consul-x=a"), []string{plainService}, "invalid-metadata", "SERVICE_consul-x"},
		{"a key of 64 kB", examplePolicy, env("SERVICE_" + long + "=a"), []string{plainService}, "invalid-metadata", "SERVICE_" + long[:112] + "…"},
		{"a newline in the name", examplePolicy, env("SERVICE_NAME=a\nb"), nil, "invalid-name", "SERVICE_NAME"},
		{"a name with spaces", examplePolicy, env("SERVICE_NAME=a b"), nil, "invalid-name", "SERVICE_NAME"},
		{"a name of 64 kB", examplePolicy, env("SERVICE_NAME=" + long), nil, "invalid-name", "SERVICE_NAME"},
		{"an id with a path", examplePolicy, env("SERVICE_ID=../../v1/kv"), []string{plainService}, "invalid-id", "SERVICE_ID"},
		{"an id with a query", examplePolicy, env("SERVICE_ID=a?b"), []string{plainService}, "invalid-id", "SERVICE_ID"},
		{"an id of 64 kB", examplePolicy, env("SERVICE_ID=" + long), []string{plainService}, "invalid-id", "SERVICE_ID"},
		{"an id that is a newline", examplePolicy, env("SERVICE_ID=\n"), []string{plainService}, "invalid-id", "SERVICE_ID"},
		{"an address that is none", labelled, func(c *Container) { c.Config.Labels["ip"] = "evil.example.com" }, []string{plainService}, "invalid-address", "ip"},
		{"no address label", labelled, func(*Container) {}, []string{plainService}, "no-address-label", "ip"},
		{"published on loopback, registered elsewhere", forced, func(c *Container) {
			c.NetworkSettings.Ports["80/tcp"] = []PortBinding{{"127.0.0.1", "80"}}
		}, []string{"hostname:c:80 is web at 10.1.1.1:80"}, "loopback-binding", ""},
		{"a check's URL that would lead elsewhere", examplePolicy, env("SERVICE_CHECK_HTTP=/ HTTP/1.1 Host: x"), nil, "invalid-check", "SERVICE_CHECK_HTTP"},
		{"an interval that is none", examplePolicy, env("SERVICE_CHECK_TCP=true", "SERVICE_CHECK_INTERVAL=soon"), nil, "invalid-check", "SERVICE_CHECK_INTERVAL"},
		{"a negative timeout", examplePolicy, env("SERVICE_CHECK_TCP=true", "SERVICE_CHECK_TIMEOUT=-1s"), nil, "invalid-check", "SERVICE_CHECK_TIMEOUT"},
		{"a method that is none", examplePolicy, env("SERVICE_CHECK_HTTP=/", "SERVICE_CHECK_HTTP_METHOD=GET /x"), nil, "invalid-check", "SERVICE_CHECK_HTTP_METHOD"},
		{"a status that is none", examplePolicy, env("SERVICE_CHECK_HTTP=/", "SERVICE_CHECK_INITIAL_STATUS=fine"), nil, "invalid-check", "SERVICE_CHECK_INITIAL_STATUS"},
		{"a script", examplePolicy, env("SERVICE_CHECK_SCRIPT=rm -rf /"), nil, "invalid-check", "SERVICE_CHECK_SCRIPT"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dockerRun(t, `-p 80:80 web`)
			test.run(c)
			d := Describe(test.policy, Observed{Container: c}, nobody)
			if test.want != nil {
				if diff := cmp.Diff(test.want, sentences(d.Services)); diff != "" {
					t.Error(diff)
				}
			}
			if len(d.Findings) != 1 || d.Findings[0].Code != test.code || d.Findings[0].Key != test.key {
				t.Fatalf("findings %v; want one %s about %s", d.Findings, test.code, test.key)
			}
			if text := d.Findings[0].String(); len(text) > 1000 || !plain(text) {
				t.Errorf("the finding is not fit for a log: %q", text)
			}
			assertAcceptable(t, d.Services)
		})
	}
}

func env(variables ...string) func(*Container) {
	return func(c *Container) { c.Config.Env = append(c.Config.Env, variables...) }
}

func numbers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()
}

// assertAcceptable checks what holds for every registration, whatever the input.
func assertAcceptable(t *testing.T, services []*Service) {
	t.Helper()
	ids := map[string]bool{}
	for _, s := range services {
		r := s.Registration
		if ids[r.ID] {
			t.Errorf("id %q twice", r.ID)
		}
		ids[r.ID] = true
		if r.Port < 1 || r.Port > 65535 || r.Address == "" {
			t.Errorf("%q is at %q port %d", r.ID, r.Address, r.Port)
		}
		texts := append([]string{r.ID, r.Name, r.Address}, r.Tags...)
		if len(r.Tags) > maxTags || len(r.Meta) > maxMeta+1 {
			t.Errorf("%q has %d tags and %d metadata", r.ID, len(r.Tags), len(r.Meta))
		}
		for key, value := range r.Meta {
			if key != markKey && !metaKeyPattern.MatchString(key) || len(key) > 128 || len(value) > 512 {
				t.Errorf("%q has metadata %q of %d bytes", r.ID, key, len(value))
			}
			texts = append(texts, value)
		}
		for _, check := range r.Checks {
			texts = append(texts, check.HTTP, check.TCP, check.GRPC, check.Method, check.Interval, check.Timeout, check.TTL, check.Status)
			if len(check.Args) > 0 {
				t.Errorf("%q has a check that runs %q", r.ID, check.Args)
			}
		}
		for _, text := range texts {
			if !utf8.ValidString(text) || !plain(text) || len(text) > maxTag {
				t.Errorf("%q holds %.200q", r.ID, text)
			}
		}
	}
}

func TestChecksOfRegistratorsDocumentation(t *testing.T) {
	scripts := examplePolicy
	scripts.ScriptChecks = true
	id := "service:hostname:c:80"
	tests := []struct {
		name   string
		policy Policy
		env    []string
		want   *api.AgentServiceCheck
	}{
		{"none", examplePolicy, nil, nil},
		{"HTTP", examplePolicy, []string{"SERVICE_80_CHECK_HTTP=/health/endpoint/path", "SERVICE_80_CHECK_INTERVAL=15s", "SERVICE_80_CHECK_TIMEOUT=1s"},
			&api.AgentServiceCheck{CheckID: id, HTTP: "http://192.168.1.102:8000/health/endpoint/path", Interval: "15s", Timeout: "1s"}},
		{"HTTP with defaults", examplePolicy, []string{"SERVICE_CHECK_HTTP=/health?deep=1"},
			&api.AgentServiceCheck{CheckID: id, HTTP: "http://192.168.1.102:8000/health?deep=1", Interval: "10s"}},
		{"HTTP with a method", examplePolicy, []string{"SERVICE_CHECK_HTTP=/", "SERVICE_CHECK_HTTP_METHOD=head"},
			&api.AgentServiceCheck{CheckID: id, HTTP: "http://192.168.1.102:8000/", Method: "HEAD", Interval: "10s"}},
		{"HTTP that tries another host", examplePolicy, []string{"SERVICE_CHECK_HTTP=@evil.example.com/"},
			&api.AgentServiceCheck{CheckID: id, HTTP: "http://192.168.1.102:8000/@evil.example.com/", Interval: "10s"}},
		{"HTTPS", examplePolicy, []string{"SERVICE_80_CHECK_HTTPS=/health", "SERVICE_80_CHECK_INTERVAL=15s", "SERVICE_80_CHECK_TLS_SKIP_VERIFY=true"},
			&api.AgentServiceCheck{CheckID: id, HTTP: "https://192.168.1.102:8000/health", Interval: "15s", TLSSkipVerify: true}},
		{"TCP", examplePolicy, []string{"SERVICE_80_CHECK_TCP=true", "SERVICE_80_CHECK_INTERVAL=15s", "SERVICE_80_CHECK_TIMEOUT=3s"},
			&api.AgentServiceCheck{CheckID: id, TCP: "192.168.1.102:8000", Interval: "15s", Timeout: "3s"}},
		{"gRPC", examplePolicy, []string{"SERVICE_CHECK_GRPC=true", "SERVICE_CHECK_GRPC_USE_TLS=true", "SERVICE_CHECK_TLS_SKIP_VERIFY=true"},
			&api.AgentServiceCheck{CheckID: id, GRPC: "192.168.1.102:8000", GRPCUseTLS: true, TLSSkipVerify: true, Interval: "10s"}},
		{"TTL", examplePolicy, []string{"SERVICE_CHECK_TTL=30s"}, &api.AgentServiceCheck{CheckID: id, TTL: "30s"}},
		{"script, as a shell line with address and port", scripts, []string{"SERVICE_CHECK_SCRIPT=nc $SERVICE_IP $SERVICE_PORT | grep OK"},
			&api.AgentServiceCheck{CheckID: id, Args: []string{"/bin/sh", "-c", "nc 192.168.1.102 8000 | grep OK"}, Interval: "10s"}},
		{"command", scripts, []string{"SERVICE_CHECK_CMD=probe", "SERVICE_CHECK_INTERVAL=1m"},
			&api.AgentServiceCheck{CheckID: id, Args: []string{"check-cmd", "c0ffee12c0ff", "80", "probe"}, Interval: "1m"}},
		{"initial status", examplePolicy, []string{"SERVICE_CHECK_TCP=true", "SERVICE_CHECK_INITIAL_STATUS=passing"},
			&api.AgentServiceCheck{CheckID: id, TCP: "192.168.1.102:8000", Interval: "10s", Status: "passing"}},
		{"deregister after", examplePolicy, []string{"SERVICE_CHECK_TCP=true", "SERVICE_CHECK_DEREGISTER_AFTER=10m"},
			&api.AgentServiceCheck{CheckID: id, TCP: "192.168.1.102:8000", Interval: "10s", DeregisterCriticalServiceAfter: "10m"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dockerRun(t, `-p 8000:80 web`)
			c.Config.Env = test.env
			d := Describe(test.policy, Observed{Container: c}, nobody)
			var got *api.AgentServiceCheck
			if checks := d.Services[0].Registration.Checks; len(checks) > 0 {
				got = checks[0]
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if len(d.Findings) > 0 {
				t.Errorf("findings: %v", d.Findings)
			}
		})
	}
}

func TestHealthcheckBecomesACheck(t *testing.T) {
	tests := []struct {
		name   string
		health Health
		env    string
		want   CheckState
	}{
		{"healthy", Health{Status: "healthy"}, "", CheckState{"passing", "healthy"}},
		{"unhealthy", Health{Status: "unhealthy", Log: []HealthProbe{{0, "fine"}, {1, "bad\nnews\n"}}}, "", CheckState{"critical", "unhealthy: exit code 1: bad?news"}},
		{"no verdict yet", Health{Status: "starting"}, "", CheckState{"critical", "starting: no verdict yet"}},
		{"no verdict yet, and it says what to assume", Health{Status: "starting"}, "SERVICE_CHECK_INITIAL_STATUS=passing", CheckState{"passing", "starting: no verdict yet"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			c := dockerRun(t, `-p 80:80 web`)
			c.State.Health = &test.health
			c.Config.Env = []string{test.env}
			s := Describe(examplePolicy, Observed{Container: c}, nobody).Services[0]
			if diff := cmp.Diff(&test.want, s.Health); diff != "" {
				t.Error(diff)
			}
			check := s.Registration.Checks[0]
			if check.CheckID != "docker:hostname:c:80" || check.Status != test.want.Status || check.TTL == "" {
				t.Errorf("the check is %+v", check)
			}
		})
	}
	off := examplePolicy
	off.DockerHealth = false
	c := dockerRun(t, `-p 80:80 web`)
	c.State.Health = &Health{Status: "healthy"}
	if s := Describe(off, Observed{Container: c}, nobody).Services[0]; s.Health != nil || len(s.Registration.Checks) > 0 {
		t.Errorf("-docker-health=false has %v", s.Registration.Checks)
	}
}

func FuzzDescribe(f *testing.F) {
	f.Add("SERVICE_NAME=web", "SERVICE_TAGS=a\\,b,c", "SERVICE_80_CHECK_HTTP=/x", "PORTS=1,2", "nginx:1@sha256:0", "/c", "80/tcp", "0.0.0.0", "8080", "host")
	f.Add("SERVICE_ID=a/../b", "SERVICE_consul-x=\xff", "SERVICE_CHECK_HTTP=@x", "MARATHON_APP_ID=/a", "a/b/", "c", "x/udp", "::1", "0", "container:x")
	f.Fuzz(func(t *testing.T, e1, e2, e3, e4, image, name, port, ip, hostPort, mode string) {
		c := &Container{
			ID: "0123456789abcdef", Name: name, State: State{Running: true, Health: &Health{Status: "unhealthy", Log: []HealthProbe{{1, e1}}}},
			Config:     Config{Image: image, Env: []string{e1, e2, e3, e4}, Labels: map[string]string{e1: e2, "ip": ip}, ExposedPorts: map[string]struct{}{port: {}}},
			HostConfig: HostConfig{NetworkMode: mode},
			NetworkSettings: NetworkSettings{IPAddress: ip, Ports: map[string][]PortBinding{port: {{ip, hostPort}}, "80/tcp": {{"", "8080"}}},
				Networks: map[string]Network{mode: {IPAddress: ip}}},
		}
		p := examplePolicy
		p.MarathonNames = true
		d := Describe(p, Observed{Container: c}, func(string) *Container { return c })
		assertAcceptable(t, d.Services)
		for _, finding := range d.Findings {
			if !plain(finding.String()) {
				t.Errorf("finding %q", finding.String())
			}
		}
		again := Describe(p, Observed{Container: c}, func(string) *Container { return c })
		if diff := cmp.Diff(sentences(d.Services), sentences(again.Services)); diff != "" {
			t.Errorf("the same container asked for something else:\n%s", diff)
		}
	})
}

func FuzzParseContainer(f *testing.F) {
	f.Add([]byte(`{"Id":"0123","Name":"/c","State":{"Running":true},"Config":{"ExposedPorts":{"80/tcp":{}},"Labels":null},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"","HostPort":"80"}]}}}`))
	f.Add([]byte(`{"Id":"0","NetworkSettings":null,"HostConfig":{"NetworkMode":"host"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		c, err := ParseContainer(body)
		if err != nil {
			return
		}
		assertAcceptable(t, Describe(examplePolicy, Observed{Container: c}, nobody).Services)
	})
}

func FuzzSplitTags(f *testing.F) {
	for _, seed := range []string{"a,b", `a\,b,c`, ",,", `\`, `\\,`, "é,\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		tags := splitTags(s)
		escaped := make([]string, len(tags))
		for i, tag := range tags {
			if tag == "" {
				t.Fatalf("%q has an empty tag", s)
			}
			escaped[i] = strings.ReplaceAll(tag, ",", `\,`)
		}
		if diff := cmp.Diff(tags, splitTags(strings.Join(escaped, ","))); diff != "" && !strings.Contains(s, `\`) {
			t.Errorf("%q does not survive escaping:\n%s", s, diff)
		}
	})
}
