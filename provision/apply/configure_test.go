package apply

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/survey"
)

// configured is a component whose state is behind answers: each is what it says is
// pending, the last for ever; an empty name is an error.
type configured struct {
	*thing
	answers [][]string
	done    []string
}

func (c *configured) Pending(context.Context, component.Platform, *cluster.Datacenter, component.Access) ([]component.Action, error) {
	now := c.answers[0]
	if len(c.answers) > 1 {
		c.answers = c.answers[1:]
	}
	var all []component.Action
	for _, name := range now {
		if name == "" {
			return nil, errors.New("no leader")
		}
		all = append(all, component.Action{ID: name, Title: "make " + name, Do: func(context.Context) error {
			c.done = append(c.done, name)
			return nil
		}})
	}
	return all, nil
}

func (c *configured) Expected(component.Platform, *cluster.Datacenter) []component.Action { return nil }

func TestConfigureAsksUntilNothingIsPending(t *testing.T) {
	for name, c := range map[string]struct {
		answers    [][]string
		done, fail string
	}{
		"nothing to do":                         {[][]string{nil}, "", ""},
		"some show when others are done":        {[][]string{{"x"}, {"y"}, nil}, "x y", ""},
		"it cannot be told for a moment":        {[][]string{{""}, {"x"}, {""}, nil}, "x", ""},
		"a member behind says that it is to do": {[][]string{{"x"}, {"x"}, {"x"}, nil}, "x", ""},
		"it does not last":                      {[][]string{{"x"}}, "x", "make x: it was done, and is still to do"},
		"it is never known":                     {[][]string{{""}}, "", "no leader"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := &runner{Options: Options{Survey: &survey.Survey{}, Patience: 2 * time.Second, Mask: func(s string) string { return s }}}
			state := &configured{thing: &thing{name: "state"}, answers: c.answers}
			err := r.configureIn(t.Context(), state, state, &cluster.Datacenter{Name: "dc1"})
			if done := strings.Join(state.done, " "); done != c.done {
				t.Errorf("%q was done; want %q", done, c.done)
			}
			if c.fail == "" && err != nil || c.fail != "" && (err == nil || !strings.HasPrefix(err.Error(), c.fail)) {
				t.Errorf("error %v; want %q", err, c.fail)
			}
		})
	}
}
