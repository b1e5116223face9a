package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/mi-lb/mi-lb/provision/apply"
	"github.com/mi-lb/mi-lb/provision/plan"
)

// progress shows what a run does: a table that changes on a terminal, lines
// elsewhere.
type progress struct {
	out     io.Writer
	verbose bool
	begun   time.Time

	mu    sync.Mutex
	table *table // nil for lines
	last  map[string]apply.State
	stop  chan struct{}
	done  chan struct{}
}

func newProgress(s *session, p *plan.Plan) *progress {
	g := &progress{out: s.stdout, verbose: s.verbose, begun: time.Now(), last: map[string]apply.State{}}
	file, ok := s.stdout.(*os.File)
	if !ok || !isTerminal(file) || s.verbose || os.Getenv("TERM") == "dumb" {
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

// event shows that something happened.
func (g *progress) event(e apply.Event) {
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
		text += ": " + firstLineOf(e.Error)
	}
	fmt.Fprintf(g.out, "%s %-12s %-16s %s\n", clock(time.Since(g.begun)), e.Component, where, text)
}

// isNotable says whether a step takes long, or is felt by others.
func isNotable(step string) bool {
	verb, _, _ := strings.Cut(step, " ")
	return slices.Contains([]string{"installs", "uploads", "downloads", "unpacks", "starts", "restarts", "reloads", "stops", "runs"}, verb)
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}

// table is machines by components.
type table struct {
	columns, rows []string
	cells         map[string]apply.State
	// doing is what each machine, or datacenter, is at.
	doing map[string]string
	size  func() (width, height int, err error)
	color bool
	drawn int // lines of the last drawing
}

func (t *table) event(e apply.Event) {
	if t.cells == nil {
		t.cells, t.doing = map[string]apply.State{}, map[string]string{}
	}
	if !slices.Contains(t.columns, e.Component) && e.State != apply.Unchanged && e.State != apply.Skipped {
		t.columns = append(t.columns, e.Component)
	}
	where := e.Node
	if where == "" {
		where = e.Datacenter
	}
	t.cells[where+" "+e.Component] = e.State
	text := e.Step
	if e.Error != "" {
		text = firstLineOf(e.Error)
	}
	switch e.State {
	case apply.Done, apply.Unchanged:
		delete(t.doing, where)
	default:
		t.doing[where] = e.Component + ": " + text
	}
}

// marks of states, and their colours.
var marks = map[apply.State]struct{ mark, color string }{
	apply.Working: {"»", "\x1b[36m"}, apply.Waiting: {"…", "\x1b[33m"}, apply.Done: {"✓", "\x1b[32m"},
	apply.Unchanged: {"=", "\x1b[2m"}, apply.Failed: {"✗", "\x1b[31m"}, apply.Skipped: {"-", "\x1b[31m"},
}

// draw is the table, over the one that was drawn before.
func (t *table) draw(since time.Duration) string {
	width, height, err := t.size()
	if err != nil || width < 20 {
		width, height = 80, 24
	}
	name := len("machine")
	for _, row := range t.rows {
		name = max(name, len(row))
	}
	lines := []string{fmt.Sprintf("%-*s %s  %s", name, "machine", strings.Join(t.columns, " "), clock(since))}
	rows := t.rows
	if most := max(height-4, 3); len(rows) > most {
		// Those that are at something, or failed, and how many others there are.
		rows = slices.DeleteFunc(slices.Clone(rows), func(row string) bool { return t.doing[row] == "" })
		rows = rows[:min(len(rows), most-1)]
		lines[0] += fmt.Sprintf("  (%d of %d machines)", len(rows), len(t.rows))
	}
	for _, row := range rows {
		lines = append(lines, t.row(row, name))
	}
	for _, where := range t.others() {
		lines = append(lines, fmt.Sprintf("%-*s %s", name, where, t.doing[where]))
	}
	var b strings.Builder
	if t.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r", t.drawn)
	}
	for _, line := range lines {
		b.WriteString(cut(line, width-1) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	t.drawn = len(lines)
	return b.String()
}

// others are datacenters that are at something.
func (t *table) others() []string {
	var all []string
	for where := range t.doing {
		if !slices.Contains(t.rows, where) {
			all = append(all, where)
		}
	}
	slices.Sort(all)
	return all
}

func (t *table) row(row string, name int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s ", name, row)
	for _, column := range t.columns {
		m, ok := marks[t.cells[row+" "+column]]
		mark := m.mark
		if !ok {
			mark = "·"
		}
		pad := strings.Repeat(" ", len(column))
		if t.color && m.color != "" {
			mark = m.color + mark + "\x1b[0m"
		}
		b.WriteString(mark + pad)
	}
	b.WriteString(" " + t.doing[row])
	return b.String()
}

// cut shortens a line to a width, not counting what colours it.
func cut(line string, width int) string {
	var b strings.Builder
	n, escape := 0, false
	for _, r := range line {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape = true
		case r == '\n' || r == '\r' || r == '\t':
			r = ' '
			fallthrough
		default:
			if n++; n > width {
				return b.String() + "\x1b[0m"
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}
