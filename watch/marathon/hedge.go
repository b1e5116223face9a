package marathon

import (
	"context"
	"time"
)

// hedged runs attempt, and a second one beside it when the first has not come
// to an end after a while: whoever succeeds first wins. The second is replaced
// by a fresh one each time the while is over, so that a first attempt that hangs
// on a dead connection does not delay recovery until its own timeout. All
// attempts have ended when hedged returns.
func hedged[T any](ctx context.Context, while time.Duration, attempt func(ctx context.Context, n int) (T, error)) (T, error) {
	type outcome struct {
		n     int
		value T
		err   error
	}
	ctx, cancelAll := context.WithCancel(ctx)
	outcomes := make(chan outcome)
	running := map[int]context.CancelFunc{}
	next := 0
	start := func() {
		n := next
		next++
		own, cancel := context.WithCancel(ctx)
		running[n] = cancel
		go func() {
			value, err := attempt(own, n)
			outcomes <- outcome{n, value, err}
		}()
	}
	defer func() {
		cancelAll()
		for range running {
			<-outcomes
		}
	}()
	// replaced are attempts that were cancelled; their failure says nothing.
	replaced := map[int]bool{}
	live := func() int { return len(running) - len(replaced) }

	start()
	ticker := time.NewTicker(while)
	defer ticker.Stop()
	for {
		select {
		case o := <-outcomes:
			running[o.n]()
			delete(running, o.n)
			if replaced[o.n] {
				delete(replaced, o.n)
				continue
			}
			if o.err == nil || live() == 0 {
				return o.value, o.err
			}
		case <-ticker.C:
			if live() == 2 {
				newest := next - 1
				running[newest]()
				replaced[newest] = true
			}
			if live() < 2 {
				start()
			}
		}
	}
}
