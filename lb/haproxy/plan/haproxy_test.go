package plan

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mi-lb/mi-lb/lb/haproxy/process"
	"github.com/mi-lb/mi-lb/lb/haproxy/render/haproxytest"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// written writes the table for a real HAProxy, the way the encoding says.
func written(t *testing.T, cfg process.Config, table *routing.Table, encoding *Encoding, generation string) {
	t.Helper()
	dir := filepath.Dir(cfg.Files[0])
	rows := map[string]string{"hosts.map": "", "ports.map": ""}
	model, err := New(table, encoding)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range model.Maps() {
		for _, row := range model.Rows(file) {
			rows[filepath.Base(file)] += row.Key + " " + row.Value + "\n"
		}
	}
	for name, content := range rows {
		haproxytest.WriteFile(t, dir, name, content)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `global
	stats socket %s mode 600 level admin expose-fd listeners
	description %s
	maxconn 100
defaults
	mode http
	timeout connect 1s
	timeout client 1s
	timeout server 1s
	default-server inter 1h fall 1000
frontend f
	bind %s
	use_backend %%[req.hdr(host),map(%s)]
	use_backend %%[dst_port,map(%s)]
`, cfg.RuntimeSocket, generation, "unix@"+filepath.Join(dir, "f.sock"), filepath.Join(dir, "hosts.map"), filepath.Join(dir, "ports.map"))
	for _, backend := range table.Backends {
		fmt.Fprintf(&b, "backend %s\n\tbalance %s\n", backendName(backend.ID), backend.Balance)
		if backend.Sticky {
			b.WriteString("\tdynamic-cookie-key k\n\tcookie c insert indirect dynamic\n")
		}
		args, err := encoding.args(backend, backend.Servers)
		if err != nil {
			t.Fatal(err)
		}
		for i, s := range backend.Servers {
			fmt.Fprintf(&b, "\tserver %s %s\n", serverName(s), args[i])
		}
	}
	haproxytest.WriteFile(t, dir, "haproxy.cfg", b.String())
}

// settled fails the test unless HAProxy runs what the model says, soon: from 3.0 on an
// address changes a moment after the answer.
func settled(t *testing.T, what string, client *runtime.Client, running *Running, encoding *Encoding, caps runtime.Capabilities) {
	t.Helper()
	haproxytest.Until(t, what, func() error {
		if drifted := seen(t, client, running, encoding, caps); drifted.Total() != 0 {
			return fmt.Errorf("%v: %v", drifted.Counts, drifted.Ops)
		}
		return nil
	})
}

// seen compares what HAProxy runs with the model of it.
func seen(t *testing.T, client *runtime.Client, running *Running, encoding *Encoding, caps runtime.Capabilities) Drifted {
	t.Helper()
	servers, err := client.Servers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]runtime.MapEntry{}
	for _, file := range running.Maps() {
		if rows[file], err = client.MapEntries(t.Context(), file); err != nil {
			t.Fatal(err)
		}
	}
	return Drift(running, servers, rows, caps)
}

func TestARealHAProxyRunsWhatTheModelSays(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			dir := haproxytest.Dir(t)
			cfg := process.Config{
				Path: haproxytest.Path(t), Files: []string{filepath.Join(dir, "haproxy.cfg")}, Managed: true,
				MasterSocket: filepath.Join(dir, "m.sock"), RuntimeSocket: filepath.Join(dir, "s.sock"), Output: filepath.Join(dir, "out"),
				Log: slog.New(slog.DiscardHandler),
			}
			encoding := testEncoding()
			encoding.Route = func(r routing.Route) (Row, error) {
				return Row{Map: filepath.Join(dir, "hosts.map"), Key: r.Host + r.Path}, nil
			}
			encoding.Port = func(p routing.Port) (Row, error) {
				return Row{Map: filepath.Join(dir, "ports.map"), Key: fmt.Sprint(p.Number)}, nil
			}
			h := newHistory(seed + 1000)
			table := h.step()
			written(t, cfg, table, encoding, "start")
			p, err := process.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := p.Stop(context.Background(), 0); err != nil {
					t.Error(err)
				}
				_ = p.Close()
			})
			if _, err := p.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			caps, err := p.Runtime().Capabilities(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			running, err := New(table, encoding)
			if err != nil {
				t.Fatal(err)
			}
			do := func(ops []Op) {
				t.Helper()
				script := NewScript(ops)
				replies, err := p.Runtime().Exec(t.Context(), script.Commands)
				if err != nil {
					t.Fatal(err)
				}
				if done, failed := script.Outcome(replies); len(failed) > 0 || len(done) != len(ops) {
					t.Fatalf("%d of %d done, failed: %v", len(done), len(ops), failed)
				}
			}
			reloads, ops := 0, 0
			var leaving []Ref
			for step := range 60 {
				table = h.step()
				plan := Diff(running, table, caps)
				do(plan.Ops)
				ops += len(plan.Ops)
				running = running.After(plan)
				leaving = append(leaving, plan.Leaving...)
				if plan.Urgent() {
					generation := fmt.Sprint("step-", step)
					written(t, cfg, table, encoding, generation)
					if _, err := p.Reload(t.Context(), process.Request{Reason: plan.Reload[0].Word, Generation: generation}); err != nil {
						t.Fatal(err)
					}
					reloads++
					if running, err = New(table, encoding); err != nil {
						t.Fatal(err)
					}
					settled(t, fmt.Sprintf("step %d, reloaded", step), p.Runtime(), running, encoding, caps)
					plan = Diff(running, table, caps)
					do(plan.Ops)
					running, leaving = running.After(plan), nil
				} else if h.IntN(3) == 0 {
					cut := running.Cut(table, leaving)
					do(cut)
					running, leaving = running.Apply(cut), nil
				}
				settled(t, fmt.Sprintf("step %d", step), p.Runtime(), running, encoding, caps)
			}
			t.Logf("%d operations, %d reloads", ops, reloads)

			// Somebody meddles: it is found and put right.
			if _, err := p.Runtime().Exec(t.Context(), []string{"clear map " + filepath.Join(dir, "hosts.map")}); err != nil {
				t.Fatal(err)
			}
			for _, b := range running.Backends() {
				for _, s := range b.Servers {
					do([]Op{SetServerState{Ref{b.ID, b.Name, s.Name}, routing.Maint}})
				}
			}
			drifted := seen(t, p.Runtime(), running, encoding, caps)
			if drifted.Total() == 0 {
				t.Error("meddling was not found")
			}
			do(drifted.Ops)
			settled(t, "after the repair", p.Runtime(), drifted.Observed.Apply(drifted.Ops), encoding, caps)
		})
	}
}
