package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/provision/platform"
)

// runInventory runs "mi-lb inventory" with arguments.
func runInventory(t *testing.T, arguments ...string) (string, error) {
	t.Helper()
	command := inventoryCommand()
	command.SilenceErrors, command.SilenceUsage = true, true
	var out bytes.Buffer
	command.SetOut(&out)
	command.SetArgs(arguments)
	err := command.ExecuteContext(t.Context())
	return out.String(), err
}

func writeInventory(t *testing.T, text string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("inventory", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

const oneMachine = "host-01 ansible_host=10.0.0.1 consul_token=abcdef\n[role=control]\nhost-01\n[role=worker]\nhost-01\n[dc=dc1]\nhost-01\n"

func TestInventoryLintFailsForWhatIsRefusedOnly(t *testing.T) {
	writeInventory(t, oneMachine)
	out, err := runInventory(t, "lint", "-i", "inventory")
	if err != nil || !strings.Contains(out, "1 hosts in dc1") {
		t.Errorf("%v\n%s", err, out)
	}
	writeInventory(t, "leader1 ansible_ssh_host=10.0.0.1\nleader2 ansible_ssh_host=10.0.0.2\nleader3 ansible_ssh_host=10.0.0.3\n[consul_servers]\nleader1[1:3]\n[dc1]\nleader[1:3]\n")
	out, err = runInventory(t, "lint", "-i", "inventory")
	if err == nil || !strings.Contains(out, `inventory:5: error: group "consul_servers" names the unknown host "leader11"`) {
		t.Errorf("%v\n%s", err, out)
	}
	writeInventory(t, "[broken section]\n")
	out, err = runInventory(t, "lint", "-i", "inventory", "--output", "json")
	var report lintReport
	if err == nil || json.Unmarshal([]byte(out), &report) != nil || len(report.Findings) != 1 || report.Findings[0].At.Line != 1 {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestInventoryLintFindsMisspeltVariablesOfAllComponents(t *testing.T) {
	for _, v := range platform.Variables() {
		if len(v.Name) < 6 {
			continue
		}
		writeInventory(t, oneMachine+"[all:vars]\n"+v.Name+"x=1\nour_own_variable=2\n"+v.Name+"_of_ours=3\n")
		out, err := runInventory(t, "lint", "-i", "inventory")
		if want := fmt.Sprintf("inventory:9: warning: nothing reads the variable %q; did you mean %q?", v.Name+"x", v.Name); err != nil || !strings.Contains(out, want) {
			t.Errorf("%v\n%s\nwant: %s", err, out, want)
		}
		if strings.Contains(out, "our_own") || strings.Contains(out, "_of_ours") {
			t.Errorf("what is like nothing is found: %s", out)
		}
	}
}

func TestInventoryGraphDrawsATree(t *testing.T) {
	writeInventory(t, oneMachine)
	out, err := runInventory(t, "graph", "-i", "inventory", "dc=dc1")
	if err != nil || out != "@dc=dc1:\n  |--host-01\n" {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := runInventory(t, "graph", "-i", "inventory", "dc=dc2"); err == nil || !strings.Contains(err.Error(), `did you mean "dc=dc1"?`) {
		t.Error(err)
	}
}

func TestInventoryShowHidesSecrets(t *testing.T) {
	writeInventory(t, oneMachine)
	for _, arguments := range [][]string{{"show", "-i", "inventory"}, {"show", "-i", "inventory", "host-01"}, {"show", "-i", "inventory", "-o", "json"}} {
		out, err := runInventory(t, arguments...)
		if err != nil || !strings.Contains(out, "10.0.0.1") || strings.Contains(out, "abcdef") {
			t.Errorf("%v: %v\n%s", arguments, err, out)
		}
	}
}

func TestInventoryWithoutAnInventoryIsWrongUsage(t *testing.T) {
	for _, arguments := range [][]string{{"lint"}, {"lint", "-i", "x", "y"}} {
		_, err := runInventory(t, arguments...)
		var usage interface{ ExitCode() int }
		if !errors.As(err, &usage) || usage.ExitCode() != exitUsage {
			t.Errorf("%v: %v", arguments, err)
		}
	}
}
