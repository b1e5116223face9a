package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hinshun/vt10x"

	"github.com/mi-lb/mi-lb/provision/apply"
)

// screen is a terminal with a table on it, below a line that was there before.
type screen struct {
	terminal      vt10x.Terminal
	width, height int
	table         *table
}

const before = "$ mi-lb bootstrap"

func newScreen(width, height int, machines ...string) *screen {
	s := &screen{terminal: vt10x.New(vt10x.WithSize(width, height)), width: width, height: height}
	s.table = &table{columns: []string{"base", "docker"}, rows: machines, size: func() (int, int, error) { return s.width, s.height, nil }}
	fmt.Fprint(s.terminal, before+"\r\n")
	return s
}

func (s *screen) resize(width, height int) {
	s.width, s.height = width, height
	s.terminal.Resize(width, height)
}

// draw draws the table as a terminal's driver passes it on, and returns what is seen.
func (s *screen) draw(since time.Duration) string {
	_, _ = s.terminal.Write([]byte(strings.ReplaceAll(s.table.draw(since), "\n", "\r\n")))
	return shown(s.terminal)
}

// shown is the text on a terminal, without spaces at the end of lines and empty lines.
func shown(terminal vt10x.Terminal) string {
	var lines []string
	for line := range strings.Lines(terminal.String()) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

func TestTableHasMachinesAndComponents(t *testing.T) {
	s := newScreen(70, 24, "a", "machine-b")
	for _, e := range []apply.Event{
		{Component: "base", Node: "a", State: apply.Done},
		{Component: "docker", Node: "a", State: apply.Working, Step: "installs docker.io"},
		{Component: "base", Node: "machine-b", State: apply.Failed, Error: "it broke"},
		{Component: "consul", Datacenter: "dc1", State: apply.Working, Step: "make the policy x, which has a name that is much too long for it"},
	} {
		s.table.event(e)
	}
	s.draw(time.Second)
	s.table.note = "Stopping."
	want := before + `
machine   base docker consul  01:05
a         ✓    »      ·       docker: installs docker.io
machine-b ✗    ·      ·       base: it broke
dc1       consul: make the policy x, which has a name that is much to
Stopping.`
	if got := s.draw(65 * time.Second); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	// Without room for the names of components.
	s.resize(45, 24)
	s.table.note = "Stopping after the steps that are being done. Interrupt again to stop at once."
	want = `machine   components  01:05
a         ✓»· docker: installs docker.io
machine-b ✗·· base: it broke
dc1       consul: make the policy x, which h
Stopping after the steps that are being
done. Interrupt again to stop at once.`
	if got := s.draw(65 * time.Second); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestTableStaysWholeInWindowsOfAnySize(t *testing.T) {
	var machines []string
	for i := range 60 {
		machines = append(machines, fmt.Sprintf("dc1-a-machine-with-a-name-%02d", i))
	}
	for _, few := range []int{1, 3, 60} {
		for _, sizes := range [][][2]int{
			{{80, 24}, {80, 24}}, {{80, 24}, {30, 24}, {120, 40}}, {{200, 70}, {80, 10}, {200, 70}}, {{20, 5}}, {{40, 6}, {20, 5}, {200, 60}, {21, 30}},
		} {
			s := newScreen(sizes[0][0], sizes[0][1], machines[:few]...)
			for step, size := range sizes {
				s.resize(size[0], size[1])
				for i := range machines[:few] {
					state := []apply.State{apply.Working, apply.Waiting, apply.Done, apply.Failed}[(i+step)%4]
					s.table.event(apply.Event{Component: "docker", Node: machines[i], State: state, Step: strings.Repeat("a long step ", 20), Error: ""})
				}
				for _, d := range []string{"dc1", "dc2", "dc3"} {
					s.table.event(apply.Event{Component: "consul", Datacenter: d, State: apply.Working, Step: strings.Repeat("世界", 80)})
				}
				for range 3 {
					got := s.draw(time.Minute)
					lines := strings.Split(got, "\n")
					if strings.Count("\n"+got, "\nmachine") != 1 || len(lines) >= s.height || strings.Count(got, "(") > 1 {
						t.Fatalf("%d machines in %v:\n%s", few, size, got)
					}
					if few == 60 && s.height < 60 && s.height > 8 && !strings.Contains(got, "of 60 machines)") {
						t.Errorf("it does not say how many machines there are:\n%s", got)
					}
				}
			}
		}
	}
}

func TestTableBelowOtherTextLeavesThatAlone(t *testing.T) {
	s := newScreen(80, 12, "a", "b")
	for i := range 30 {
		fmt.Fprintf(s.terminal, "line %d\r\n", i)
	}
	for range 4 {
		s.draw(time.Second)
	}
	if got := s.draw(time.Second); !strings.HasSuffix(got, "line 28\nline 29\nmachine base docker  00:01\na       ·    ·\nb       ·    ·") {
		t.Error(got)
	}
}

func TestWhatMachinesSayDoesNotControlTheTerminal(t *testing.T) {
	var out, errors strings.Builder
	g := &progress{out: &out, errors: &errors, begun: time.Now(), last: map[string]apply.State{}}
	g.event(apply.Event{Component: "base", Node: "a", State: apply.Failed, Error: "\x1b]0;title\x07\x1b[2Jit\tbroke \x9b1m\u202e\xff\r\nin two"})
	if got, want := out.String(), "00:00 base         a                failed: ?]0;title??[2Jit broke ?1m???\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	g.say("Stopping.")
	if errors.String() != "\nStopping.\n" {
		t.Errorf("%q", errors.String())
	}
}
