package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/text/width"

	"github.com/mi-lb/mi-lb/provision/apply"
)

// table is machines by components, drawn on a terminal over what was drawn before.
type table struct {
	columns, rows []string
	cells         map[string]apply.State
	// doing is what each machine, or datacenter, is at.
	doing map[string]string
	note  string
	size  func() (width, height int, err error)
	color bool

	drawn, width int // lines of the last drawing, and how wide the window was
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
		text = e.Error
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

const (
	fewestColumns, fewestLines = 20, 5
	// leastText is how much room there must be for what a machine is at before
	// components get columns with their names.
	leastText = 30
	mostName  = 24
)

// draw is the table, over the one that was drawn before.
func (t *table) draw(since time.Duration) string {
	columns, height, err := t.size()
	if err != nil || columns < 1 || height < 1 {
		columns, height = 80, 24
	}
	lines := t.lines(max(columns, fewestColumns), max(height, fewestLines), clock(since))
	var b strings.Builder
	switch {
	case t.drawn > 0 && columns < t.width:
		// A terminal may have broken the lines, or not: nobody knows where they are.
		b.WriteString("\x1b[H\x1b[2J")
	case t.drawn > 0:
		fmt.Fprintf(&b, "\x1b[%dA\r", t.drawn)
	}
	for _, line := range lines {
		b.WriteString(cut(line, columns-1) + "\x1b[K\n")
	}
	b.WriteString("\x1b[J")
	t.drawn, t.width = len(lines), columns
	return b.String()
}

// lines are those of the table, one fewer than fit, as the cursor is below them.
func (t *table) lines(columns, height int, clock string) []string {
	name := len("machine")
	for _, row := range t.rows {
		name = min(max(name, len(row)), mostName, columns/2)
	}
	heads := strings.Join(t.columns, " ")
	named := name+1+len(heads)+1+leastText <= columns
	if !named {
		heads = "components"
	}
	lines := []string{fmt.Sprintf("%-*s %s  %s", name, "machine", heads, clock)}
	var last []string
	for _, where := range t.others() {
		last = append(last, fmt.Sprintf("%-*s %s", name, where, t.doing[where]))
	}
	last = last[:min(len(last), max(1, height/4))]
	rows := t.rows
	last = append(last, wrapped(t.note, columns-1)...)
	if room := height - 1 - len(lines) - len(last); len(rows) > room {
		// Those that are at something, or failed, and how many others there are.
		rows = slices.DeleteFunc(slices.Clone(rows), func(row string) bool { return t.doing[row] == "" })
		rows = rows[:min(len(rows), max(room-1, 0))]
		last = append([]string{fmt.Sprintf("(%d of %d machines)", len(rows), len(t.rows))}, last...)
	}
	for _, row := range rows {
		lines = append(lines, t.row(row, name, named))
	}
	lines = append(lines, last...)
	return lines[:min(len(lines), height-1)]
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

// row is a machine's line. Without names of components there is a mark for each, and
// what the machine is at says which one that is.
func (t *table) row(row string, name int, named bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s ", name, row[:min(len(row), name)])
	for _, column := range t.columns {
		m, ok := marks[t.cells[row+" "+column]]
		mark := m.mark
		if !ok {
			mark = "·"
		}
		if t.color && m.color != "" {
			mark = m.color + mark + "\x1b[0m"
		}
		b.WriteString(mark)
		if named {
			b.WriteString(strings.Repeat(" ", len(column)))
		}
	}
	b.WriteString(" " + t.doing[row])
	return b.String()
}

// wrapped are words in lines of so many columns.
func wrapped(text string, columns int) []string {
	var lines []string
	for word := range strings.FieldsSeq(text) {
		if last := len(lines) - 1; last >= 0 && len(lines[last])+1+len(word) <= columns {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// cut shortens a line to so many columns, not counting what colours it.
func cut(line string, columns int) string {
	var b strings.Builder
	n, escape, colored := 0, false, false
	for _, r := range line {
		switch {
		case escape:
			escape = r != 'm'
		case r == '\x1b':
			escape, colored = true, true
		default:
			n++
			if kind := width.LookupRune(r).Kind(); kind == width.EastAsianWide || kind == width.EastAsianFullwidth {
				n++
			}
			switch {
			case n > columns && colored:
				return b.String() + "\x1b[0m"
			case n > columns:
				return b.String()
			}
		}
		b.WriteRune(r)
	}
	return b.String()
}
