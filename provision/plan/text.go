package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/component"
)

// TextOptions say how a plan is printed.
type TextOptions struct {
	// Contents shows what new files have in them, too.
	Contents bool
	// Color marks lines with terminal colours.
	Color bool
	// Mask hides secrets; nil hides none.
	Mask func(string) string
}

// Text is the plan for people. Machines that change in the same way share their
// lines.
func (p *Plan) Text(o TextOptions) string {
	w := &writer{options: o}
	for _, u := range p.Unreachable {
		w.line("- ", fmt.Sprintf("%s (%s) is not reached, and left alone: %s", u.Node, u.Datacenter, u.Why))
	}
	if len(p.Unreachable) > 0 {
		w.blank()
	}
	w.problems(p.Problems)
	for i, wave := range p.Waves {
		w.line("", fmt.Sprintf("%d. %s", i+1, wave.Component))
		for _, g := range grouped(wave.Hosts, o) {
			w.line("", "   "+names(g.nodes)+":")
			for _, line := range g.lines {
				w.line("     ", line)
			}
		}
		w.actions(wave.Actions)
		w.order(wave)
		w.blank()
	}
	w.line("", p.Summary())
	return w.b.String()
}

// Summary is one line: how much there is to do.
func (p *Plan) Summary() string {
	n := p.Counts()
	if p.IsEmpty() {
		s := "Nothing to do: the platform is what the inventory says."
		if len(p.Unreachable) > 0 {
			s = fmt.Sprintf("Nothing to do on the machines that are reached; %d are not.", len(p.Unreachable))
		}
		return s
	}
	parts := []string{fmt.Sprintf("%d to add, %d to change, %d to remove", n.Add, n.Change, n.Remove)}
	for _, x := range []struct {
		n    int
		what string
	}{{n.Starts, "starts"}, {n.Restarts, "restarts"}, {n.Reloads, "reloads"}, {n.Actions, "actions"}} {
		if x.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", x.n, strings.TrimSuffix(x.what, pluralEnd(x.n))))
		}
	}
	return fmt.Sprintf("On %s: %s.", count(n.Hosts, "machine"), strings.Join(parts, ", "))
}

// pluralEnd is what is cut from a plural for one.
func pluralEnd(n int) string {
	if n == 1 {
		return "s"
	}
	return "\x00"
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

type writer struct {
	b       strings.Builder
	options TextOptions
}

const (
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	red    = "\x1b[31m"
	plain  = "\x1b[0m"
)

func (w *writer) line(indent, text string) {
	if w.options.Mask != nil {
		text = w.options.Mask(text)
	}
	color := ""
	if w.options.Color && text != "" {
		color = map[byte]string{'+': green, '~': yellow, '!': yellow, '-': red}[strings.TrimLeft(text+" ", " ")[0:][0]]
	}
	if color != "" {
		text = color + text + plain
	}
	w.b.WriteString(indent + text + "\n")
}

func (w *writer) blank() { w.b.WriteString("\n") }

func (w *writer) problems(problems []component.Problem) {
	for _, p := range problems {
		w.line("", ProblemText(p))
	}
	if len(problems) > 0 {
		w.blank()
	}
}

// ProblemText is a problem on two lines: what is wrong, and what to do.
func ProblemText(p component.Problem) string {
	word := "warning"
	if p.Fatal {
		word = "error"
	}
	where := p.Node
	if p.Component != "" {
		where = strings.TrimPrefix(where+", "+p.Component, ", ")
	}
	if where != "" {
		where += ": "
	}
	s := fmt.Sprintf("! %s: %s%s (%s)", word, where, p.Message, p.Code)
	if p.Advice != "" {
		s += "\n    " + p.Advice
	}
	return s
}

func (w *writer) actions(actions []component.Action) {
	last := ""
	for _, a := range actions {
		if a.Datacenter != last {
			last = a.Datacenter
			w.line("", "   in "+a.Datacenter+":")
		}
		w.line("     ", "~ "+a.Title)
	}
}

// order says in which order a wave restarts what only one may restart at a time.
func (w *writer) order(wave Wave) {
	for _, datacenter := range sortedKeys(wave.Order) {
		if why := wave.Lost[datacenter]; why != "" {
			w.line("   ", fmt.Sprintf("in %s all at once: %s, as there is no quorum to protect: %s", datacenter, strings.Join(wave.Order[datacenter], ", "), why))
			continue
		}
		if nodes := wave.Order[datacenter]; len(nodes) > 1 {
			w.line("   ", fmt.Sprintf("in %s one at a time: %s", datacenter, strings.Join(nodes, ", then ")))
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// group are machines with the same changes.
type group struct {
	nodes []string
	lines []string
}

func grouped(hosts []Host, o TextOptions) []group {
	var groups []group
	for _, h := range hosts {
		lines := hostLines(h, o)
		at := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.lines, lines) })
		if at < 0 {
			groups = append(groups, group{lines: lines})
			at = len(groups) - 1
		}
		groups[at].nodes = append(groups[at].nodes, h.Node)
	}
	return groups
}

// hostLines are a machine's changes.
func hostLines(h Host, o TextOptions) []string {
	var lines []string
	for _, c := range h.Changes {
		text := fmt.Sprintf("%s %s %s", c.Sign, c.Kind, c.Name)
		if c.What != "" {
			text += ", " + c.What
		}
		if c.Why != "" {
			text += " (" + c.Why + ")"
		}
		lines = append(lines, text)
		body := c.Diff
		if o.Contents && c.Sign == Add && c.File != nil && c.File.Secret.IsEmpty() {
			for line := range strings.Lines(c.File.Content) {
				body += "+" + line
			}
		}
		for line := range strings.Lines(body) {
			lines = append(lines, "    "+strings.TrimRight(line, "\n"))
		}
	}
	return lines
}

// names lists machines, with their number where there are many.
func names(nodes []string) string {
	const most = 6
	if len(nodes) > most {
		return fmt.Sprintf("%s and %d more (%d machines)", strings.Join(nodes[:most-1], ", "), len(nodes)-most+1, len(nodes))
	}
	return strings.Join(nodes, ", ")
}
