package inventory

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// read loads the file "inventory" of an archive.
func read(t *testing.T, archive string, arguments ...string) (*Inventory, error) {
	t.Helper()
	parsed := txtar.Parse([]byte(archive))
	directory, standard := unpack(t, parsed)
	t.Chdir(directory)
	if arguments == nil {
		arguments = standard
	}
	return load(t, arguments)
}

func TestErrorsNameFileAndLine(t *testing.T) {
	tests := []struct{ name, archive, want string }{
		{"a section with spaces", "-- inventory --\nh1\n\n[a b]\n", "inventory:3: "},
		{"an unknown section", "-- inventory --\n[a:hots]\n", "inventory:1: section [a:hots]"},
		{"a child that is nowhere", "-- inventory --\n[a]\n[a:children]\nnothing\n", "inventory:3: section [a:children]: there is no group \"nothing\""},
		{"vars of no group", "-- inventory --\n[a:vars]\nx=1\n", "inventory:1: section [a:vars]: there is no group"},
		{"a range backwards", "-- inventory --\n\nh[3:1]\n", "inventory:2: host pattern \"h[3:1]\""},
		{"a port out of range", "-- inventory --\nh:99999\n", "inventory:1: host pattern"},
		{"a million hosts", "-- inventory --\nh[1:1000000]\n", "inventory:1: host pattern"},
		{"an open quote", "-- inventory --\nh1 a='b\n", "inventory:1: a quotation is not closed"},
		{"a circle", "-- inventory --\n[a:children]\nb\n[b:children]\na\n", "closes a circle"},
		{"a list of hosts in YAML", "arguments: -i x.yml\n-- x.yml --\nall:\n  hosts:\n    - a\n", "x.yml:3: hosts of group \"all\" must be a mapping"},
		{"broken YAML", "arguments: -i x.yml\n-- x.yml --\nall:\n  hosts: [\n", "x.yml:2: it is no valid YAML"},
		{"broken YAML without extension", "-- inventory --\nall:\n  hosts: [\n", "inventory:2: it is no valid YAML"},
		{"a plugin's configuration", "arguments: -i x.yml\n-- x.yml --\nplugin: aws_ec2\n", "x.yml:1: this configures the inventory plugin \"aws_ec2\""},
		{"group_vars that are a list", "-- inventory --\nh1\n-- group_vars/all.yml --\n\n- 1\n", "group_vars/all.yml:2: variables are a mapping"},
		{"an unknown tag", "-- inventory --\nh1\n-- group_vars/all.yml --\na: 1\nb: !lua x\n", "group_vars/all.yml:2: the tag !lua is unknown"},
		{"aliases without end", "-- inventory --\nh1\n-- group_vars/all.yml --\na: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\n", "group_vars/all.yml:"},
		{"a vault without a password", "-- inventory --\nh1\n-- group_vars/all --\n$ANSIBLE_VAULT;1.1;AES256\n6162\n", "group_vars/all:1: the file cannot be read: it is encrypted with Ansible Vault"},
		{"a program that is not executable", "arguments: -i x/y\n-- x/y --\n", ""},
		{"a program that prints no JSON", "arguments: -i x\n-- x --\n#!/bin/sh\necho hello\n", "x --list:1: the program does not print JSON"},
		{"a program that fails", "arguments: -i x\n-- x --\n#!/bin/sh\necho no credentials >&2; exit 4\n", "no credentials"},
		{"extra variables without @", "arguments: -i inventory -e ./vars.yml\n-- inventory --\nh1\n", "write -e @./vars.yml"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := read(t, test.archive)
			if test.want == "" {
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v; want %q", err, test.want)
			}
		})
	}
}

func TestLintNamesWhatIsRefusedAndOdd(t *testing.T) {
	tests := []struct {
		name, archive string
		want          []string // beginnings; in order
	}{
		{"a group that names hosts that do not exist", `
-- inventory --
leader1 ansible_ssh_host=10.0.0.1
leader2 ansible_ssh_host=10.0.0.2
leader3 ansible_ssh_host=10.0.0.3
follower1 ansible_ssh_host=10.0.0.4

[consul_servers]
leader1[1:3]

[mesos_leaders]
leader[1:3]
`, []string{
			`inventory:7: error: group "consul_servers" names the unknown host "leader11" by "leader1[1:3]"; the hosts are those listed from inventory:1 on; did you mean "leader1"? (unknown-host)`,
			`inventory:7: error: group "consul_servers" names the unknown host "leader12"`,
			`inventory:7: error: group "consul_servers" names the unknown host "leader13"`,
		}},
		{"a single machine above the groups declares nothing", "-- inventory --\nbastion\n[a]\nh[1:3]\n", nil},
		{"a host twice in one section", "-- inventory --\n[a]\nh1\nh[1:2]\n", []string{`inventory:3: error: host "h1" is listed twice in group "a", the first time by "h1" (inventory:2) (listed-twice)`}},
		{"a section twice is only odd", "-- inventory --\n[a]\nh1\n[a]\nh1\n", []string{`inventory:3: warning: section [a] was there before, in line 1`}},
		{"a variable twice", "-- inventory --\nh1\n[all:vars]\nx=1\nx=2\n", []string{"inventory:4: warning: x of group all was set before, in line 3"}},
		{"a name for a host and a group", "-- inventory --\nh1\n[h1]\nh2\n", []string{`inventory:1: error: "h1" is a host and a group`}},
		{"a file that nothing reads", "-- inventory --\nh1\n-- group_vars/dc9 --\nx: 1\n", []string{"group_vars/dc9: warning: no group has this name"}},
		{"a group that is a scalar", "arguments: -i x.yml\n-- x.yml --\nall:\n  hosts: {a: }\nweb: yes\n", []string{`x.yml:3: error: "web" is no group`}},
		{"a group beside children", "arguments: -i x.yml\n-- x.yml --\nall:\n  hosts: {a: }\n  web: {hosts: {b: }}\n", []string{`x.yml:3: error: "web" in group "all" is none of hosts, vars, children`}},
		{"a key twice", "-- inventory --\nh1\n-- group_vars/all --\na: 1\nb: 2\na: 3\n", []string{`group_vars/all:3: warning: the key "a" was given before, in line 1`}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			inv, err := read(t, test.archive)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range inv.Findings() {
				got = append(got, f.String())
			}
			if len(got) != len(test.want) {
				t.Fatalf("found\n%s\nwant %d findings", strings.Join(got, "\n"), len(test.want))
			}
			for i := range got {
				if !strings.HasPrefix(got[i], test.want[i]) {
					t.Errorf("found\n%s\nwant\n%s", got[i], test.want[i])
				}
			}
		})
	}
}

func TestTemplatesAreResolvedWhenTheyAreNeeded(t *testing.T) {
	inv, err := read(t, `
-- inventory --
h1 ip=10.0.0.1
h2 ip=10.0.0.2
[g]
h[1:2]
-- group_vars/all.yml --
number: 5
yes: yes
nothing:
list: [a, {k: v}]
plain: "{{ ip }}"
typed: "{{ number }}"
mixed: "{{inventory_hostname}}-{{ number }}.{{ list[1].k }}"
path: "{{ list[1]['k'] }}"
other: "{{ hostvars['h2'].ip }}"
me: "{{ hostvars[inventory_hostname]['ip'] }}"
empty: "{{ nothing }}"
nested: {a: ["{{ plain }}"]}
lookup: "{{ lookup('file','~/.ssh/id_rsa.pub') }}"
filter: "{{ ip | upper }}"
statement: "{% if x %}y{% endif %}"
missing: "{{ nowhere }}"
circle: "{{ circle2 }}"
circle2: "{{ circle }}"
raw: !unsafe "{{ ip }}"
`)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := inv.Host("h1")
	for name, want := range map[string]any{
		"plain": "10.0.0.1", "typed": int64(5), "mixed": "h1-5.v", "path": "v", "other": "10.0.0.2", "me": "10.0.0.1", "empty": "", "raw": "{{ ip }}",
	} {
		if v, ok, err := host.Var(name); err != nil || !ok || v.Value != want {
			t.Errorf("%s: %v, %v, %v; want %v", name, v.Value, ok, err, want)
		}
	}
	if v, _, err := host.Var("nested"); err != nil || v.Value.(map[string]any)["a"].([]any)[0] != "10.0.0.1" {
		t.Errorf("nested: %v, %v", v.Value, err)
	}
	for name, want := range map[string]string{
		"lookup":    "group_vars/all.yml:13: lookup of host h1: {{ lookup('file','~/.ssh/id_rsa.pub') }} is more than the name of a variable",
		"filter":    "group_vars/all.yml:14: filter of host h1: {{ ip | upper }} is more",
		"statement": "group_vars/all.yml:15: statement of host h1",
		"missing":   `group_vars/all.yml:16: missing of host h1: {{ nowhere }} names the variable "nowhere", which is not set for host h1`,
		"circle":    "leads back to itself",
	} {
		if _, _, err := host.Var(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	if _, ok, err := host.Var("never set"); ok || err != nil {
		t.Errorf("a variable that is not set: %v, %v", ok, err)
	}
}

func TestEncryptedValuesAreReadWithTheirPasswordOnly(t *testing.T) {
	archive, err := txtar.ParseFile("testdata/ansible/vaulted.txtar")
	if err != nil {
		t.Fatal(err)
	}
	directory, arguments := unpack(t, archive)
	t.Chdir(directory)
	inv, err := load(t, arguments)
	if err != nil {
		t.Fatal(err)
	}
	host, _ := inv.Host("h1")
	if v, _, err := host.Var("inline"); err != nil || v.Value != "top secret" {
		t.Errorf("inline: %v, %v", v.Value, err)
	}
	if v, _, err := host.Var("secret_number"); err != nil || v.Value != int64(5) {
		t.Errorf("secret_number, from an encrypted file: %v, %v", v.Value, err)
	}
	if _, err := Load(t.Context(), Options{Sources: []string{"inventory"}, Keyring: NewKeyring("wrong")}); err == nil || !strings.Contains(err.Error(), "vault.yml:1: the file cannot be read: none of the vault passwords") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestSecretsAreHiddenInListings(t *testing.T) {
	inv, err := read(t, "-- inventory --\nh1 consul_acl_master_token=abc key_file=/x ansible_become_password=pw no_token=\n")
	if err != nil {
		t.Fatal(err)
	}
	vars := inv.Listing(IsSecretName).Hostvars["h1"]
	for name, want := range map[string]any{"consul_acl_master_token": masked, "ansible_become_password": masked, "key_file": "/x", "no_token": ""} {
		if vars[name] != want {
			t.Errorf("%s is shown as %v; want %v", name, vars[name], want)
		}
	}
}
