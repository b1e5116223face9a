package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

const contract = `
domain: mi-lb.example.com        # service "web" is http://web.mi-lb.example.com
datacenter: ""                   # empty: the agent's own
state_dir: /var/lib/mi-lb
exposure: all                    # all | tagged
consul:                          # leave out for no Consul
  address: http://127.0.0.1:8500 # http, https or unix://
  token_file: ""
  datacenters: []                # empty: all that the catalog knows, as they come and go
marathon:                        # any number of clusters; leave out for none
  - url: [http://127.0.0.1:8080] # members of one cluster
    username: ""
    password_file: ""
    groups: []                   # marathon-lb groups; empty: all apps
file: ""                         # static services
listen:
  http: ["0.0.0.0:80"]
  https: []                      # ["0.0.0.0:443"]
  app_id: []                     # ["0.0.0.0:9091"]: by header X-Marathon-App-Id
  service_port_address: 0.0.0.0  # where service ports bind
  service_port_range: ""         # "10000-10100": bound once, opened and closed without a reload
haproxy:
  path: haproxy
  manage: true                   # start and supervise HAProxy; false: attach to one that systemd runs
admin:
  listen: 127.0.0.1:9090
`

func TestTheContractIsAConfiguration(t *testing.T) {
	want := Default()
	want.Domain = "mi-lb.example.com"
	want.Consul.Address = "http://127.0.0.1:8500"
	want.Consul.Datacenters = []string{}
	want.Marathon = []Marathon{{URL: []string{"http://127.0.0.1:8080"}, Groups: []string{}}}
	want.Listen.HTTPS, want.Listen.AppID = []string{}, []string{}
	got, err := load("mi-lb.yaml", []byte(contract), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestFlagsOverrideTheEnvironmentWhichOverridesTheFile(t *testing.T) {
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--domain=flag.org", "--listen.http=:81,:82", "--haproxy.manage=false", "--haproxy.drain=1m"}); err != nil {
		t.Fatal(err)
	}
	t.Setenv("MI_LB_DOMAIN", "env.org")
	t.Setenv("MI_LB_CONSUL_ADDRESS", "http://10.0.0.1:8500")
	t.Setenv("MI_LB_MARATHON", `[{url: ["http://m1:8080"], name: m}]`)
	t.Setenv("MI_LB_HAPROXY_MAXCONN", "4000")
	got, err := load("f", []byte("domain: file.org\nexposure: tagged\nconsul: {address: http://127.0.0.1:8500, datacenters: [dc1]}\nhaproxy: {reload_every: 9s}\n"), flags)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Domain, want.Exposure = "flag.org", "tagged"
	want.Consul.Address, want.Consul.Datacenters = "http://10.0.0.1:8500", []string{"dc1"}
	want.Marathon = []Marathon{{URL: []string{"http://m1:8080"}, Name: "m"}}
	want.Listen.HTTP = []string{":81", ":82"}
	want.HAProxy.Manage, want.HAProxy.Drain, want.HAProxy.MaxConn, want.HAProxy.ReloadEvery = false, time.Minute, 4000, 9*time.Second
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestMistakesAreNamedWithLineKeyAndTheNearestKey(t *testing.T) {
	for _, tc := range []struct{ name, yaml, want string }{
		{"unknown key", "domain: a.org\nexposur: all\n", `f:2: exposur: there is no such key; did you mean "exposure"?`},
		{"unknown nested key", "consul:\n  adress: http://x\n", `f:2: consul.adress: there is no such key; did you mean "consul.address"?`},
		{"key in the wrong section", "address: http://x\n", `f:1: address: there is no such key; did you mean "consul.address"?`},
		{"far from everything", "frobnicate: 1\n", `f:1: frobnicate: there is no such key; docs/configuration.md lists them all`},
		{"unknown marathon key", "marathon:\n  - url: [http://m]\n    usrname: x\n", `f:3: marathon.usrname: there is no such key; did you mean "username"?`},
		{"marathon is no list", "marathon:\n  url: x\n", `f:2: marathon: is not a list; write one "- url: [...]" for each cluster`},
		{"section is a value", "consul: http://x\n", `f:1: consul: is not a section with keys of its own`},
		{"key twice", "domain: a\nfile: x\ndomain: b\n", `f:3: domain: is there twice; the first is on line 1`},
		{"not YAML", "a: [\n", `f: `},
		{"number for a duration", "haproxy:\n  drain: 30\n", `f:2: haproxy.drain: 30 is not a duration with its unit, like "30s"`},
		{"word for a bool", "haproxy:\n  manage: perhaps\n", `f:2: haproxy.manage: "perhaps" is not true or false`},
		{"word for a number", "haproxy:\n  maxconn: many\n", `f:2: haproxy.maxconn: "many" is not a whole number`},
		{"map for a string", "domain: {a: b}\n", `f:1: domain: `},
		{"beginning of a marathon key", "marathon:\n  - url: [http://m]\n    user: x\n", `f:3: marathon.user: there is no such key; did you mean "username"?`},
		{"mistyped word", "exposure: taged\n", `f:1: exposure: "taged" is none of all, tagged; did you mean "tagged"?`},
		{"no scheme", "consul: {address: '127.0.0.1:8500'}\n", `f:1: consul.address: "127.0.0.1:8500" is no address that begins with http://, https://, unix://`},
		{"password in an address", "consul: {address: 'http://a:secret@h:8500'}\n", `f:1: consul.address: has a user or password in it; use the keys for them, which keep it out of logs`},
		{"host name to listen on", "listen: {http: [localhost:80]}\n", `f:1: listen.http: "localhost:80" has a host name; only addresses can be listened on`},
		{"address twice", "listen: {http: ['0.0.0.0:80'], app_id: ['127.0.0.1:80']}\n", `f:1: listen.http: 0.0.0.0:80 is taken by listen.app_id already (127.0.0.1:80)`},
		{"port inside of the range", "listen: {service_port_range: 80-90}\n", `listen.http: 0.0.0.0:80 is inside of listen.service_port_range 80-90`},
		{"two clusters of one name", "marathon: [{url: [http://m]}, {url: [http://m/]}]\n", `f:1: marathon: clusters 1 and 2 are both called "m"; give one another name`},
		{"cluster without members", "marathon: [{name: m}]\n", `f:1: marathon: cluster 1 has no url`},
		{"negative time", "haproxy: {drain: -1s}\n", `f:1: haproxy.drain: must be more than 0`},
		{"timeout of zero", "haproxy: {timeout: {connect: 0s}}\n", `f:1: haproxy.timeout.connect: must be more than 0`},
		{"certificates for nothing", "listen: {certificates: /x}\n", `f:1: listen.certificates: there is no listen.https to use them on`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load("f", []byte(tc.yaml), nil)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got  %v\nwant %s", err, tc.want)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the secret is in the error: %v", err)
			}
		})
	}
}

func TestAllMistakesAreNamedAtOnce(t *testing.T) {
	_, err := load("f", []byte("exposur: all\nlisen: {}\n"), nil)
	if err == nil || strings.Count(err.Error(), "did you mean") != 2 {
		t.Errorf("got %v", err)
	}
}

func TestMistakesSayWhetherTheyAreFromAFlagOrTheEnvironment(t *testing.T) {
	t.Setenv("MI_LB_EXPOSURE", "some")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	AddFlags(flags)
	if err := flags.Parse([]string{"--locality=near"}); err != nil {
		t.Fatal(err)
	}
	_, err := load("", nil, flags)
	for _, want := range []string{`environment MI_LB_EXPOSURE: exposure: "some"`, `flag --locality: locality: "near"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(contract))
	f.Add([]byte("marathon: [{url: {}}, 3]\nconsul: *x\n"))
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		_, _ = load("f", data, nil)
	})
}
