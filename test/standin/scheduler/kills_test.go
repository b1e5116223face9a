package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/wire"
)

func TestKillsAreRepeatedUntilTheTaskHasEnded(t *testing.T) {
	sent := make(chan wire.Kill)
	refuse := errors.New("the agent is not there")
	answers := make(chan error)
	var log strings.Builder
	k := &kills{again: time.Millisecond, soon: time.Millisecond, log: slog.New(slog.NewTextHandler(&log, nil)), send: func(w wire.Kill) error {
		sent <- w
		return <-answers
	}}
	done := make(chan struct{})
	go func() {
		k.kill(t.Context(), wire.Kill{TaskID: "a", Grace: 3})
		close(done)
	}()
	for range 100 { // longer than anybody's patience
		<-sent
		answers <- refuse
	}
	for range 3 {
		if got := <-sent; got.TaskID != "a" || got.Grace != 3 {
			t.Errorf("%+v", got)
		}
		answers <- nil
	}
	k.kill(t.Context(), wire.Kill{TaskID: "a"}) // is being done
	<-sent
	k.ended("a")
	answers <- nil
	<-done
	k.ended("a")
	for _, want := range []string{"Kill could not be sent", "the agent is not there", "No kill ack received, retrying"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %q", want)
		}
	}
}

func TestKillsEndWithTheLeadership(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	k := &kills{again: time.Hour, soon: time.Hour, log: slog.New(slog.DiscardHandler), send: func(wire.Kill) error { cancel(); return nil }}
	k.kill(ctx, wire.Kill{TaskID: "a"})
}
