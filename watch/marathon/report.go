package marathon

import (
	"fmt"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// betweenReports is how often a report is repeated for nothing but a newer
// LastSuccess.
const betweenReports = 5 * time.Second

func (l *loop) publish(now time.Time) {
	if l.view.readAll > 0 && !l.answered {
		// The first list is published even if it is empty: that there is nothing
		// is news.
		l.answered, l.view.changed = true, true
	}
	if !l.answered && l.w.config.Saved == nil {
		return // what is known from single apps only is not the cluster
	}
	if !l.view.changed || now.Before(l.published.Add(betweenParts)) {
		return
	}
	l.published = now
	l.sink.Publish(l.view.part())
}

// report says how the source is, if that is news.
func (l *loop) report(now time.Time) {
	status := l.status(now)
	if status != l.state.Status {
		l.state.Status, l.state.Since = status, now
		l.w.log.Info("source is "+string(status), "error", l.state.LastError)
	}
	l.state.Held = l.view.heldTasks()
	l.state.Detail = l.detail()

	news := l.state
	if news.LastSuccess.Sub(l.reported.LastSuccess) < betweenReports && !l.reported.LastSuccess.IsZero() {
		news.LastSuccess = l.reported.LastSuccess
	}
	// The time of an error that repeats itself is no news either.
	if news.LastError == l.reported.LastError && news.LastErrorAt.Sub(l.reported.LastErrorAt) < betweenReports {
		news.LastErrorAt = l.reported.LastErrorAt
	}
	if news == l.reported {
		return
	}
	l.reported = l.state
	l.sink.Report(l.state)
}

func (l *loop) status(now time.Time) watch.Status {
	if l.trust(now) {
		if l.view.readAll == 0 {
			return watch.Connecting
		}
		return watch.Current
	}
	if l.view.readAll == 0 && len(l.view.apps) == 0 {
		return watch.Connecting
	}
	return watch.Stale
}

// trust says whether nothing is wrong: no failed read waits for its retry, none
// takes too long, nothing is held back.
func (l *loop) trust(now time.Time) bool {
	if l.allFailed > 0 || len(l.appFailed) > 0 || len(l.view.held) > 0 {
		return false
	}
	for _, at := range l.slowAt() {
		if !now.Before(at) {
			if l.state.LastErrorAt.Before(at) {
				l.failed(fmt.Errorf("no answer for %s or longer", l.w.config.Intervals.Slow), now)
			}
			return false
		}
	}
	return true
}

func (l *loop) detail() string {
	var text string
	if l.streamUp {
		text = "events from " + l.member
	} else {
		text = fmt.Sprintf("no event stream, read every %s", l.w.config.Intervals.Poll)
	}
	if l.about.Version != "" {
		text += "; Marathon " + watch.Printable(l.about.Version)
	}
	if l.leader != "" {
		text += ", leader " + watch.Printable(l.leader)
	}
	return text
}
