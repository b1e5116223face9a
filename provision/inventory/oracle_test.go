package inventory

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
)

// oracle is ansible-inventory, loaded once: a process that forks for each
// question, because importing Ansible is nearly all that it takes.
type oracle struct {
	mu     sync.Mutex
	stdin  *json.Encoder
	stdout *bufio.Reader
}

const oracleProgram = `
import json, os, sys
from ansible.cli.inventory import InventoryCLI
import ansible.plugins.inventory.ini, ansible.plugins.inventory.yaml, ansible.plugins.inventory.script, ansible.plugins.inventory.host_list
for line in sys.stdin:
    question = json.loads(line)
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.chdir(question["directory"])
        os.dup2(writer, 1)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            InventoryCLI.cli_executor(["ansible-inventory"] + question["arguments"])
            status = 0
        except SystemExit as e:
            status = e.code or 0
        sys.stdout.flush()
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as f:
        output = f.read().decode()
    _, status = os.waitpid(pid, 0)
    print(json.dumps({"output": output, "status": os.waitstatus_to_exitcode(status)}), flush=True)
`

func startOracle(t *testing.T) *oracle {
	t.Helper()
	path, err := exec.LookPath("ansible-inventory")
	if err != nil {
		t.Fatal("ansible-inventory is missing; run test/prerequisites test")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(program), "\n")
	interpreter := strings.Fields(strings.TrimPrefix(first, "#!")) // the Python that has Ansible
	command := exec.Command(interpreter[0], append(interpreter[1:], "-c", oracleProgram)...)
	command.Env = append(os.Environ(), "ANSIBLE_NOCOLOR=1", "HOME="+t.TempDir(),
		"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED=true", "PYTHONWARNINGS=ignore")
	command.Dir = t.TempDir() // no ansible.cfg
	command.Stderr = os.Stderr
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		_ = command.Wait()
	})
	return &oracle{stdin: json.NewEncoder(stdin), stdout: bufio.NewReaderSize(stdout, 1<<20)}
}

// ask runs ansible-inventory in a directory; ok is false if it fails.
func (o *oracle) ask(t *testing.T, directory string, arguments ...string) (output string, ok bool) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.stdin.Encode(map[string]any{"directory": directory, "arguments": arguments}); err != nil {
		t.Fatal(err)
	}
	line, err := o.stdout.ReadBytes('\n')
	if err != nil {
		t.Fatalf("ansible-inventory: %v", err)
	}
	var answer struct {
		Output string
		Status int
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		t.Fatal(err)
	}
	return answer.Output, answer.Status == 0
}

// world is an archive unpacked: its first line names the arguments, as both
// ansible-inventory and mi-lb take them.
func unpack(t *testing.T, archive *txtar.Archive) (directory string, arguments []string) {
	t.Helper()
	directory = t.TempDir()
	for _, f := range archive.Files {
		path := filepath.Join(directory, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if bytes.HasPrefix(f.Data, []byte("#!")) {
			mode = 0o755
		}
		if err := os.WriteFile(path, f.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(string(archive.Comment)) {
		if after, ok := strings.CutPrefix(line, "arguments: "); ok {
			var err error
			if arguments, err = words(strings.TrimSpace(after), false); err != nil {
				t.Fatal(err)
			}
		}
	}
	if arguments == nil {
		arguments = []string{"-i", "inventory"}
	}
	return directory, arguments
}

// load reads an inventory with the arguments of ansible-inventory.
func load(t *testing.T, arguments []string) (*Inventory, error) {
	t.Helper()
	var options Options
	var passwords []string
	for i := 0; i+1 < len(arguments); i += 2 {
		switch value := arguments[i+1]; arguments[i] {
		case "-i":
			options.Sources = append(options.Sources, value)
		case "-e":
			options.Extra = append(options.Extra, value)
		case "--vault-password-file":
			passwords = append(passwords, value)
		default:
			t.Fatalf("unknown argument %q", arguments[i])
		}
	}
	keyring, err := ReadKeyring(t.Context(), passwords...)
	if err != nil {
		return nil, err
	}
	options.Keyring = keyring
	return Load(t.Context(), options)
}

func TestInventoriesAreReadAsAnsibleReadsThem(t *testing.T) {
	ansible := startOracle(t)
	archives, err := filepath.Glob("testdata/ansible/*.txtar")
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives: %v", err)
	}
	for _, path := range archives {
		path, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			directory, arguments := unpack(t, archive)
			t.Chdir(directory)
			compareWithAnsible(t, ansible, directory, arguments)
		})
	}
	for _, name := range []string{"1-datacenter", "2-datacenter"} {
		directory, err := filepath.Abs("testdata/original/0.1.0")
		if err != nil {
			t.Fatal(err)
		}
		t.Run("original/"+name, func(t *testing.T) {
			t.Chdir(directory)
			compareWithAnsible(t, ansible, directory, []string{"-i", name})
		})
	}
}

func compareWithAnsible(t *testing.T, ansible *oracle, directory string, arguments []string) {
	t.Helper()
	wantList, ok := ansible.ask(t, directory, append(arguments, "--list")...)
	inv, err := load(t, arguments)
	if !ok {
		if err == nil {
			t.Fatal("Ansible refuses this inventory, and mi-lb reads it")
		}
		t.Logf("both refuse it: %v", err)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	wantGraph, _ := ansible.ask(t, directory, append(arguments, "--graph")...)
	graph, err := inv.Graph("all")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wantGraph, graph); diff != "" {
		t.Errorf("the graph differs from Ansible's (-ansible +mi-lb):\n%s", diff)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(wantList), &want); err != nil {
		t.Fatalf("%v in %s", err, wantList)
	}
	text, err := json.Marshal(inv.Listing(nil))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(unvaulted(want), any(got)); diff != "" {
		t.Errorf("the list differs from Ansible's (-ansible +mi-lb):\n%s", diff)
	}
}

// unvaulted replaces the form in which Ansible prints encrypted values by mi-lb's.
func unvaulted(value any) any {
	switch v := value.(type) {
	case []any:
		for i := range v {
			v[i] = unvaulted(v[i])
		}
	case map[string]any:
		if _, ok := v["__ansible_vault"]; ok && len(v) == 1 {
			return (*Encrypted)(nil).String()
		}
		if s, ok := v["__ansible_unsafe"]; ok && len(v) == 1 {
			return s
		}
		for key := range v {
			v[key] = unvaulted(v[key])
		}
	}
	return value
}
