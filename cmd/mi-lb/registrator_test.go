package main

import (
	"strings"
	"testing"
	"time"
)

func TestRegistratorTakesTheOldFlags(t *testing.T) {
	f, err := parseRegistrator(strings.Fields("-ip 10.0.0.7 -internal -explicit -useIpFromLabel ip -ttl 60 -ttl-refresh 30 -tags a,b -resync 60 " +
		"-deregister on-success -retry-attempts 3 -retry-interval 500 -cleanup=true -require-label --marathon-names consul://127.0.0.1:8500"))
	if err != nil {
		t.Fatal(err)
	}
	o, err := f.options()
	if err != nil {
		t.Fatal(err)
	}
	p := o.Policy
	if p.Address != "10.0.0.7" || !p.ForceAddress || !p.Internal || !p.Explicit || p.AddressLabel != "ip" || !p.KeepFailed || !p.Cleanup ||
		!p.RequireLabel || !p.MarathonNames || !p.DockerHealth || p.ScriptChecks || p.Host == "" {
		t.Errorf("policy %+v", p)
	}
	if o.Resync != time.Minute || o.RetryAttempts != 3 || o.RetryInterval != 500*time.Millisecond || o.Agent.String() != "consul://127.0.0.1:8500" {
		t.Errorf("options %+v", o)
	}
}

func TestRegistratorSaysWhatIsWrongWithItsCommandLine(t *testing.T) {
	tests := []struct{ line, want string }{
		{"", "registry URI is missing"},
		{"consul: -internal", `unexpected "-internal"; flags come first`},
		{"-nothing consul:", "-nothing"},
		{"-ip localhost consul:", `-ip "localhost"`},
		{"-ip 0.0.0.0 consul:", `-ip "0.0.0.0"`},
		{"-ttl 60 consul:", "-ttl and -ttl-refresh must be given together"},
		{"-ttl 30 -ttl-refresh 30 consul:", "-ttl must be greater"},
		{"-retry-interval 0 consul:", "-retry-interval must be greater"},
		{"-deregister never consul:", "always or on-success"},
		{"-resync -1 consul:", "-resync must not be negative"},
	}
	for _, test := range tests {
		if _, err := parseRegistrator(strings.Fields(test.line)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("mi-lb registrator %s: %v; want %q", test.line, err, test.want)
		}
	}
	for uri, want := range map[string]string{
		"etcd://127.0.0.1/x":      "etcd is not supported",
		"127.0.0.1:8500":          "registry URI",
		"http://127.0.0.1:8500":   "write consul://",
		"consul-unix://":          "names no socket",
		"consul://u:p@127.0.0.1/": "CONSUL_HTTP_TOKEN",
	} {
		f, err := parseRegistrator([]string{"-ip", "10.0.0.7", uri})
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.options()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", uri, err, want)
		} else if strings.Contains(err.Error(), "u:p") {
			t.Errorf("%s: the error holds a password: %v", uri, err)
		}
	}
	f, err := parseRegistrator([]string{"-ip", "10.0.0.7", "-tags", "{{broken", "consul:"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.options(); err == nil || !strings.Contains(err.Error(), "-tags") {
		t.Errorf("a broken template: %v", err)
	}
}
