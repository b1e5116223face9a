package haproxy

import (
	"fmt"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

// publish makes the state of things known.
func (l *loop) publish() {
	var table *routing.Table
	if l.up && l.want.Table != nil {
		table = l.withFindings(l.want.Table)
	}
	last := l.process.Last()
	left := leftover{}
	if l.up && l.model {
		left = leftover{l.running, l.want.Table}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if table != nil {
		l.Driver.table = table
	}
	s := &l.Driver.status
	if s.Worker != last.Worker {
		s.Since = time.Now()
	}
	s.Running, s.Version, s.Master, s.Worker, s.OldWorkers = l.up && !l.lost, last.Version, last.Master, last.Worker, last.Old
	l.left = left
	s.Quarantined = nil
	for service := range l.quarantine {
		s.Quarantined = append(s.Quarantined, service)
	}
	slices.Sort(s.Quarantined)
	s.Pending = l.pending()
	if l.up && l.want.Table != nil && s.Pending == "" {
		s.Revision = l.want.Table.Revision
	}
}

func (l *loop) pending() string {
	for _, r := range l.reasons {
		if !r.Deferred {
			return "a reload is due: " + r.String()
		}
	}
	if !l.model && (l.dirty || l.job != nil) {
		return "the operator's templates are being rendered"
	}
	return ""
}

// withFindings adds what only HAProxy knows to be wrong.
func (l *loop) withFindings(t *routing.Table) *routing.Table {
	if len(l.quarantine) == 0 && len(l.blocked) == 0 {
		return t
	}
	out := *t
	out.Findings = slices.Clone(t.Findings)
	for service, q := range l.quarantine {
		out.Findings = append(out.Findings, watch.Finding{
			Code: "quarantined", Service: service, Message: watch.PrintableUpTo(q.err.Error(), 500),
			Instead: "the service is left out of HAProxy until what it asks for changes",
		})
	}
	for number, b := range l.blocked {
		out.Findings = append(out.Findings, watch.Finding{
			Code: "port-busy", Service: b.service, Key: fmt.Sprintf("port %d", number), Message: watch.PrintableUpTo(b.err.Error(), 500),
			Instead: "the port is not opened; it is tried again every few seconds",
		})
	}
	slices.SortFunc(out.Findings, watch.Finding.Compare)
	return &out
}
