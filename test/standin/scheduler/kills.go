package scheduler

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/wire"
)

// kills are the tasks that are being killed. As Marathon does, they are killed again
// and again until somebody says that they have ended: their agent, or the way to it,
// may be away.
type kills struct {
	// again is after how long a kill that nobody confirms is repeated: Marathon's
	// kill_retry_timeout. soon is after how long if it could not even be sent.
	again, soon time.Duration
	send        func(wire.Kill) error
	log         *slog.Logger

	mu       sync.Mutex
	inFlight map[string]chan struct{} // closed when the task has ended
}

// kill kills a task; it returns when that has ended, or ctx does.
func (k *kills) kill(ctx context.Context, what wire.Kill) {
	k.mu.Lock()
	if k.inFlight[what.TaskID] != nil {
		k.mu.Unlock()
		return // somebody does it already
	}
	if k.inFlight == nil {
		k.inFlight = map[string]chan struct{}{}
	}
	ended := make(chan struct{})
	k.inFlight[what.TaskID] = ended
	k.mu.Unlock()
	for attempts := 1; ; attempts++ {
		pause := k.again
		if err := k.send(what); err != nil {
			pause = k.soon
			k.log.Warn("Kill could not be sent", "task", what.TaskID, "attempts", attempts, "error", err)
		} else if attempts > 1 {
			k.log.Warn("No kill ack received, retrying", "task", what.TaskID, "attempts", attempts)
		}
		select {
		case <-ended:
			return
		case <-ctx.Done():
			k.log.Warn("Leadership ends before the task does", "task", what.TaskID, "attempts", attempts)
			return
		case <-time.After(pause):
		}
	}
}

// ended says that a task has ended.
func (k *kills) ended(taskID string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ended := k.inFlight[taskID]; ended != nil {
		close(ended)
		delete(k.inFlight, taskID)
	}
}

// isOver says whether a task in that state has ended.
func isOver(state string) bool {
	switch state {
	case "TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_KILLING", "TASK_UNREACHABLE":
		return false
	}
	return true
}
