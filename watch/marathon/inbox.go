package marathon

import (
	"sync"
	"time"
)

// inbox is where the event stream leaves what it heard. Nothing that puts
// blocks, and what is about the same app or task is kept once: a thousand
// events a second cost the reader no more than it can take.
type inbox struct {
	wake chan struct{}

	mu   sync.Mutex
	mail mail
}

// mail is all that came since it was last taken out.
type mail struct {
	changes    []taskChange
	refresh    map[string]bool
	everything bool
	// stream is what became of the event stream, nil for no news.
	stream *streamNews
	about  *Info
	// heard is when the stream last said anything; zero for not since.
	heard time.Time
}

type streamNews struct {
	up bool
	// member that it comes from, or why there is none.
	member string
	err    error
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (b *inbox) put(add func(*mail)) {
	b.mu.Lock()
	add(&b.mail)
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *inbox) event(e event) {
	if len(e.refresh) == 0 && !e.everything && e.change.effect == noEffect {
		return
	}
	b.put(func(m *mail) {
		m.everything = m.everything || e.everything
		for _, id := range e.refresh {
			if m.refresh == nil {
				m.refresh = map[string]bool{}
			}
			m.refresh[id] = true
		}
		if e.change.effect != noEffect {
			m.changes = append(m.changes, e.change)
		}
	})
}

// heardAt notes a sign of life. It does not wake anybody.
func (b *inbox) heardAt(t time.Time) {
	b.mu.Lock()
	b.mail.heard = t
	b.mu.Unlock()
}

func (b *inbox) takeOut() mail {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.mail
	b.mail = mail{}
	return m
}
