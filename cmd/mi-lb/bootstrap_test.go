package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/plan"
)

// runBootstrap runs "mi-lb bootstrap" with arguments.
func runBootstrap(t *testing.T, arguments ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"bootstrap"}, arguments...), &out, &errs)
	return out.String(), errs.String(), code
}

// here is an inventory of this machine, which is looked at and never changed.
func here(t *testing.T) {
	t.Helper()
	writeInventory(t, "me ansible_connection=local private_ipv4=10.0.0.1 consul_file=/bin/true\n[role=control]\nme\n[dc=dc1]\nme\n")
}

func TestBootstrapRefusesCommandLinesThatMakeNoSense(t *testing.T) {
	here(t)
	for _, test := range []struct {
		arguments string
		says      string
	}{
		{"plan", "no inventory was named"},
		{"plan --local -i inventory", "--local is without an inventory"},
		{"plan -i inventory --limit dc7", `--limit dc7: there is no host, group, datacenter or component`},
		{"plan -i inventory --component docked", `there is no component "docked"; there are base, docker, zookeeper`},
		{"plan -i inventory --forks 0", "--forks must be 1 or more"},
		{"plan -i inventory --host-key-checking maybe", "none of strict, accept-new, off"},
		{"plan -i inventory more", "unknown command"},
		{"plan -i inventory --age-identity a --passphrase-file b", "one of --age-identity and --passphrase-file"},
		{"secrets rotate-gossip -i inventory --limit me", "--limit and --component make no sense here"},
		{"frobnicate", "unknown command"},
	} {
		t.Run(test.arguments, func(t *testing.T) {
			_, stderr, code := runBootstrap(t, strings.Fields(test.arguments)...)
			if code != exitUsage || !strings.Contains(stderr, test.says) {
				t.Errorf("exit code %d: %s", code, stderr)
			}
		})
	}
}

func TestBootstrapRefusesInventoriesWithFileAndLine(t *testing.T) {
	writeInventory(t, "a ansible_host=10.0.0.1\nb ansible_host=10.0.0.2\n[role=control]\na\nb\n[dc=dc1]\na\nb\n")
	_, stderr, code := runBootstrap(t, "plan", "-i", "inventory")
	if code != exitFailed || !strings.Contains(stderr, "inventory:5: error: datacenter dc1 has 2 Consul servers") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
}

func TestBootstrapSaysWhatHasNoEffect(t *testing.T) {
	writeInventory(t, "me ansible_connection=local private_ipv4=10.0.0.1 consul_file=/bin/true consul_log_levle=debug\n[role=control]\nme\n[dc=dc1]\nme\n")
	_, stderr, _ := runBootstrap(t, "secrets", "init", "-i", "inventory")
	if want := `inventory:1: warning: nothing reads the variable "consul_log_levle"; did you mean "consul_log_level"?`; !strings.Contains(stderr, want) {
		t.Errorf("%s\nwant: %s", stderr, want)
	}
}

func TestBootstrapPlanSaysWhatItWouldDoAndWritesNothingElsewhere(t *testing.T) {
	here(t)
	stdout, stderr, code := runBootstrap(t, "plan", "-i", "inventory", "--ssh-config", "none")
	if code != exitFailed || !strings.Contains(stdout, "1. base") || !strings.Contains(stdout, "+ file /etc/mi-lb/tls/node-key.pem, (hidden)") ||
		!strings.Contains(stdout, "error: me: its address is to be 10.0.0.1") || !strings.Contains(stderr, "the plan has") {
		t.Errorf("exit code %d: %s\n%s", code, stdout, stderr)
	}
	if _, err := os.Stat(".mi-lb/inventory/secrets"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a plan alone has stored secrets: %v", err)
	}
	if _, err := os.Stat("/etc/mi-lb/tls"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the plan wrote something: %v", err)
	}
	stdout, _, _ = runBootstrap(t, "plan", "-i", "inventory", "--ssh-config", "none", "--output", "json", "--out", "stored")
	var p plan.Plan
	if err := json.Unmarshal([]byte(stdout), &p); err != nil || len(p.Waves) == 0 || len(p.Facts["me"]) == 0 {
		t.Errorf("%v: %s", err, stdout)
	}
	if _, err := plan.Load("stored"); err != nil {
		t.Error(err)
	}
	secret, _, code := runBootstrap(t, "secrets", "show", "-i", "inventory", "consul/gossip-key", "--reveal")
	if code != exitFine || len(strings.TrimSpace(secret)) != 44 {
		t.Errorf("a stored plan needs its secrets: %q", secret)
	}
	if strings.Contains(stdout, strings.TrimSpace(secret)) {
		t.Error("the plan has a secret")
	}
	if _, stderr, code := runBootstrap(t, "apply", "-i", "inventory", "--ssh-config", "none", "--yes"); code != exitFailed || !strings.Contains(stderr, "nothing is changed because of") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	logs, err := filepath.Glob(".mi-lb/inventory/logs/*.log")
	if err != nil || len(logs) == 0 {
		t.Fatal(err)
	}
	for _, file := range logs {
		if log, err := os.ReadFile(file); err != nil || strings.Contains(string(log), strings.TrimSpace(secret)) {
			t.Errorf("%s: %v, or it has a secret", file, err)
		}
	}
}

func TestBootstrapSecretsAreGeneratedOnceAndEncrypted(t *testing.T) {
	here(t)
	if err := os.WriteFile("passphrase", []byte("correct horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := runBootstrap(t, "secrets", "show", "-i", "inventory"); code != exitFailed || !strings.Contains(stderr, "secrets init") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	stdout, stderr, code := runBootstrap(t, "secrets", "init", "-i", "inventory", "--passphrase-file", "passphrase")
	if code != exitFine || !strings.Contains(stdout, "secrets generated") || strings.HasPrefix(stdout, "0 ") {
		t.Fatalf("exit code %d: %s%s", code, stdout, stderr)
	}
	if stdout, _, _ := runBootstrap(t, "secrets", "init", "-i", "inventory", "--passphrase-file", "passphrase"); !strings.HasPrefix(stdout, "0 secrets generated") {
		t.Errorf("again: %s", stdout)
	}
	if _, stderr, code := runBootstrap(t, "secrets", "show", "-i", "inventory"); code != exitFailed || !strings.Contains(stderr, "--passphrase-file") {
		t.Errorf("without the passphrase: exit code %d: %s", code, stderr)
	}
	stdout, _, code = runBootstrap(t, "secrets", "show", "-i", "inventory", "--passphrase-file", "passphrase")
	if code != exitFine || !strings.Contains(stdout, "consul/token/management/secret\n") {
		t.Errorf("exit code %d: %s", code, stdout)
	}
	stdout, _, _ = runBootstrap(t, "secrets", "show", "-i", "inventory", "--passphrase-file", "passphrase", "consul/gossip-key")
	if stdout != "consul/gossip-key: (hidden); --reveal prints it\n" {
		t.Error(stdout)
	}
	for _, want := range []string{"Step 1 of 3", "Step 2 of 3", "Step 3 of 3"} {
		if stdout, _, code := runBootstrap(t, "secrets", "rotate-ca", "-i", "inventory", "--passphrase-file", "passphrase"); code != exitFine || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d: %s; want %s", code, stdout, want)
		}
	}
}

func TestBootstrapResetAsksAndFindsNothingWhereNothingIs(t *testing.T) {
	here(t)
	stdout, stderr, code := runBootstrap(t, "reset", "-i", "inventory", "--ssh-config", "none", "--confirm", "x")
	if code != exitFine || !strings.Contains(stdout, "Nothing to remove") {
		t.Errorf("exit code %d: %s%s", code, stdout, stderr)
	}
}
