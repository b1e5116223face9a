package bootstrap

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mi-lb/mi-lb/test/hosts"
)

// everyFile lists what is on a machine, but for logs and what is gone when it is
// started anew.
const everyFile = `find / -xdev '(' -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log -o -path /var/lib/sudo -o -path /var/lib/systemd -o -name .sudo_as_admin_successful ')' -prune ` +
	`-o -type f -printf '%p %s %m %u %T@\n' | sort`

// TestWhatCannotWorkIsSaidBeforeAnythingIsChanged breaks machines and inventories in
// every way that operators meet, and looks whether the error says so and whether the
// machines are as they were.
func TestWhatCannotWorkIsSaidBeforeAnythingIsChanged(t *testing.T) {
	h := hosts.Start(t, hosts.Spec{Names: []string{"one", "two"}})
	one, two := h.Machine("one"), h.Machine("two")
	ctx := context.Background()
	// With a machine that is reached, what the others do not need of the one that is
	// not goes on; so both are troubled where that is the trouble.
	both := []*hosts.Machine{one, two}
	files := func(m *hosts.Machine) []string {
		t.Helper()
		list, err := m.Run(ctx, everyFile)
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(list, "\n")
	}
	check := func(t *testing.T, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	for _, c := range []struct {
		name string
		// variables of the inventory, in addition
		variables []string
		// trouble is made before, and undone after
		trouble func(t *testing.T, o *operator) (undo func())
		off     bool // machines are, meanwhile
		says    []string
	}{
		{
			name:      "a wrong password",
			variables: []string{"ansible_password=wrong"},
			trouble: func(t *testing.T, o *operator) func() {
				o.write("inventory", strings.ReplaceAll(small(h, "ansible_password=wrong"), key(h)+"\n", ""))
				return func() {}
			},
			says: []string{"one", "two", "password", "admin@"},
		},
		{
			name: "an unknown host key",
			trouble: func(t *testing.T, o *operator) func() {
				check(t, os.Remove(o.state("known_hosts")))
				return func() {}
			},
			says: []string{"one", "SHA256:", "keyscan"},
		},
		{
			name: "a changed host key",
			trouble: func(t *testing.T, o *operator) func() {
				for _, m := range both {
					check(t, m.Rekey(ctx))
				}
				return func() { check(t, h.Trust()) }
			},
			says: []string{"one", "two", "SHA256:", "has changed", "known_hosts:"},
		},
		{
			name:      "a login without sudo",
			variables: []string{"ansible_user=guest", "ansible_become_password=secret"},
			says:      []string{"one", "sudo"},
		},
		{
			name:      "sudo's password is missing",
			variables: []string{"ansible_user=deploy"},
			says:      []string{"one", "ansible_become_password"},
		},
		{
			name:      "sudo's password is wrong",
			variables: []string{"ansible_user=deploy", "ansible_become_password=wrong"},
			says:      []string{"one", "ansible_become_password"},
		},
		{
			name: "a full disk",
			trouble: func(t *testing.T, _ *operator) func() {
				check(t, one.FillDisk(ctx, "/var/lib", 8<<20))
				return func() { check(t, one.FreeDisk(ctx, "/var/lib")) }
			},
			says: []string{"one", "/var/lib", "make room"},
		},
		{
			name: "a taken port",
			trouble: func(t *testing.T, _ *operator) func() {
				release, err := one.Listen(ctx, 2181)
				check(t, err)
				return func() { check(t, release(ctx)) }
			},
			says: []string{"one", "2181", "perl"},
		},
		{
			name: "a skewed clock",
			trouble: func(t *testing.T, _ *operator) func() {
				check(t, two.SkewClock(ctx, -time.Hour))
				return func() { check(t, two.SkewClock(ctx, 0)) }
			},
			says: []string{"two", "clock"},
		},
		{
			name: "an unreachable host",
			trouble: func(t *testing.T, _ *operator) func() {
				for _, m := range both {
					check(t, m.PowerOff(ctx))
				}
				return func() {
					for _, m := range both {
						check(t, m.PowerOn(ctx))
					}
				}
			},
			off:  true,
			says: []string{"one", "two", "not reached"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOperator(t, h, small(h, c.variables...))
			if c.trouble != nil {
				undo := c.trouble(t, o)
				defer undo()
			}
			var before [][]string
			for _, m := range both {
				if !c.off {
					before = append(before, files(m))
				}
			}
			o.refused([]string{"plan"}, c.says...)
			r := o.refused([]string{"--yes"}, c.says...)
			if strings.Contains(r.says(), "goroutine ") {
				t.Errorf("it panicked: %s", r)
			}
			for i, list := range before {
				if diff := cmp.Diff(list, files(both[i])); diff != "" {
					t.Errorf("%s was changed:\n%.4000s", both[i].Name, diff)
				}
			}
			if t.Failed() {
				t.Log(r)
			}
		})
	}
}
