package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/plan"
)

// progress shows what a run does: a table that changes on a terminal, lines
// elsewhere.
type progress struct {
	out     io.Writer
	errors  io.Writer
	verbose bool
	begun   time.Time

	mu    sync.Mutex
	table *table // nil for lines
	last  map[string]apply.State
	stop  chan struct{}
	done  chan struct{}
}

func newProgress(s *session, p *plan.Plan) *progress {
	g := &progress{out: s.stdout, errors: s.stderr, verbose: s.verbose, begun: time.Now(), last: map[string]apply.State{}}
	file, ok := s.stdout.(*os.File)
	if kind := os.Getenv("TERM"); !ok || !isTerminal(file) || s.verbose || kind == "" || kind == "dumb" {
		return g
	}
	g.table = &table{size: func() (int, int, error) { return term.GetSize(int(file.Fd())) }, color: os.Getenv("NO_COLOR") == ""}
	for _, w := range p.Waves {
		g.table.columns = append(g.table.columns, w.Component)
	}
	for _, n := range s.cluster.Nodes() {
		if s.scope.Nodes == nil || slices.Contains(s.scope.Nodes, n.Name) {
			g.table.rows = append(g.table.rows, n.Name)
		}
	}
	g.stop, g.done = make(chan struct{}), make(chan struct{})
	go g.redraw()
	return g
}

// redrawEvery is how often the table is drawn again at most.
const redrawEvery = 150 * time.Millisecond

func (g *progress) redraw() {
	defer close(g.done)
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		g.mu.Lock()
		text := g.table.draw(time.Since(g.begun))
		g.mu.Unlock()
		_, _ = io.WriteString(g.out, text) // there is no other way to say that it fails
		select {
		case <-g.stop:
			g.mu.Lock()
			text := g.table.draw(time.Since(g.begun))
			g.mu.Unlock()
			_, _ = io.WriteString(g.out, text+"\n")
			return
		case <-tick.C:
		}
	}
}

// end stops showing.
func (g *progress) end() {
	if g.table != nil {
		close(g.stop)
		<-g.done
	}
}

// say shows something that is about the run as a whole.
func (g *progress) say(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table != nil {
		g.table.note = text
		return
	}
	fmt.Fprintln(g.errors, "\n"+text)
}

// event shows that something happened.
func (g *progress) event(e apply.Event) {
	e.Step, e.Error = printable(e.Step), printable(firstLineOf(e.Error))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.table != nil {
		g.table.event(e)
		return
	}
	where := e.Node
	if where == "" {
		where = e.Datacenter
	}
	key := e.Component + " " + where
	// Without --verbose the steps that take long, or that others feel.
	if !g.verbose && (e.State == apply.Working && g.last[key] == apply.Working && e.Node != "" && !isNotable(e.Step) || e.State == apply.Unchanged) {
		return
	}
	g.last[key] = e.State
	text := string(e.State)
	if e.Step != "" {
		text += ": " + e.Step
	}
	if e.Error != "" {
		text += ": " + e.Error
	}
	fmt.Fprintf(g.out, "%s %-12s %-16s %s\n", clock(time.Since(g.begun)), e.Component, where, text)
}

// printable is what machines say without what a terminal would obey.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
}

// isNotable says whether a step takes long, or is felt by others.
func isNotable(step string) bool {
	verb, _, _ := strings.Cut(step, " ")
	return slices.Contains([]string{"installs", "uploads", "downloads", "unpacks", "starts", "restarts", "reloads", "stops", "runs"}, verb)
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
