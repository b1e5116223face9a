package haproxy

import (
	"fmt"
	"slices"

	"github.com/mi-lb/mi-lb/lb/haproxy/plan"
	"github.com/mi-lb/mi-lb/lb/haproxy/render"
	"github.com/mi-lb/mi-lb/lb/haproxy/runtime"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// With an operator's own haproxy.cfg nothing is known of its structure. The files are
// compared as text: differences in server lines and maps go through the runtime API,
// everything else through a reload.

// followText makes HAProxy run what the new files say without a reload, or asks for
// one.
func (l *loop) followText(r jobResult) error {
	change := render.Compare(l.files, r.prepared.files)
	if change.Reload != "" || l.files == nil || len(l.extra) > 0 {
		if err := r.prepared.staged.Discard(); err != nil {
			return err
		}
		if change.Reload != "" {
			l.demand("file-changed", change.Reload)
		}
		l.soil()
		return nil
	}
	commands, leaving, err := l.textCommands(change)
	if err != nil {
		return err
	}
	replies, err := l.process.Runtime().Exec(l.ctx, commands)
	if err != nil {
		return fmt.Errorf("apply the difference of the files: %w", err)
	}
	for _, reply := range replies {
		if err := reply.Err(); err != nil {
			l.complain("operations", err)
			l.demand("operation-failed", reply.Command)
		}
	}
	if len(l.extra) > 0 {
		l.soil()
		return r.prepared.staged.Discard()
	}
	l.o.Observer.Operated("text", len(commands))
	l.leave(leaving)
	if err := l.commit(r.prepared, nil); err != nil {
		return err
	}
	l.served(len(commands))
	return nil
}

// textCommands are the commands for a change that needs no reload.
func (l *loop) textCommands(change render.Change) (commands []string, leaving []plan.Ref, err error) {
	var leave []string
	add := func(to *[]string) func(string, error) {
		return func(command string, e error) {
			if e != nil && err == nil {
				err = e
			}
			*to = append(*to, command)
		}
	}
	do, last := add(&commands), add(&leave)
	for _, s := range change.Servers {
		ref := plan.Ref{ID: s.Backend, Backend: s.Backend, Server: s.Server}
		switch {
		case s.Remove:
			last(runtime.SetServerState(s.Backend, s.Server, string(routing.Drain)))
			leaving = append(leaving, ref)
			continue
		case s.Add != "" && l.leftover(ref):
			// It is still there from before, drained or in maintenance.
			delete(l.leaving, ref)
			do(runtime.SetServerAddress(s.Backend, s.Server, s.Is.Address))
			do(runtime.SetServerWeight(s.Backend, s.Server, s.Is.Weight))
			do(runtime.SetServerState(s.Backend, s.Server, textState(s.Is)))
			continue
		case s.Add != "":
			do("add server "+s.Add, nil)
			if s.Is.Check {
				do(runtime.EnableHealth(s.Backend, s.Server))
			}
			do(runtime.SetServerState(s.Backend, s.Server, textState(s.Is)))
			continue
		}
		if s.Was.Address != s.Is.Address {
			do(runtime.SetServerAddress(s.Backend, s.Server, s.Is.Address))
		}
		if s.Was.Weight != s.Is.Weight {
			do(runtime.SetServerWeight(s.Backend, s.Server, s.Is.Weight))
		}
		if s.Was.MaxConn != s.Is.MaxConn {
			do(runtime.SetServerMaxConn(s.Backend, s.Server, s.Is.MaxConn))
		}
		if s.Was.Disabled != s.Is.Disabled {
			do(runtime.SetServerState(s.Backend, s.Server, textState(s.Is)))
		}
	}
	for _, m := range change.Maps {
		file := render.Current(l.o.Settings.Dir) + "/" + m.File
		before := mapKeys(l.files[m.File])
		for _, row := range m.Set {
			if before[row.Key] {
				do(runtime.SetMap(file, row.Key, row.Value))
			} else {
				do(runtime.AddMap(file, row.Key, row.Value))
			}
		}
		for _, key := range m.Delete {
			do(runtime.DelMap(file, key))
		}
	}
	return slices.Concat(commands, leave), leaving, err
}

func textState(s render.Server) string {
	if s.Disabled {
		return string(routing.Maint)
	}
	return string(routing.Ready)
}

// leftover says whether HAProxy still has a server that the files have no more.
func (l *loop) leftover(ref plan.Ref) bool {
	servers, err := l.process.Runtime().Servers(l.ctx)
	if err != nil {
		return false // adding it then fails, and a reload follows
	}
	return slices.ContainsFunc(servers, func(s runtime.Server) bool { return s.Backend == ref.Backend && s.Name == ref.Server })
}

// mapKeys are the keys of a map file.
func mapKeys(content []byte) map[string]bool {
	keys := map[string]bool{}
	for _, row := range render.MapRows(content) {
		keys[row.Key] = true
	}
	return keys
}

// cutText ends what servers that the files have no more still have.
func (l *loop) cutText(refs []plan.Ref) {
	var commands []string
	for _, ref := range refs {
		if command, err := runtime.SetServerState(ref.Backend, ref.Server, string(routing.Maint)); err == nil {
			commands = append(commands, command)
		}
		if command, err := runtime.ShutdownSessions(ref.Backend, ref.Server); err == nil {
			commands = append(commands, command)
		}
	}
	if _, err := l.process.Runtime().Exec(l.ctx, commands); err != nil && l.ctx.Err() == nil {
		l.complain("operations", err)
	}
}
