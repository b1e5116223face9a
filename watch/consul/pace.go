package consul

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff is how long to wait after so many failures in a row. It is capped low,
// so that what has healed is noticed soon, except where the agent has said that
// it is asked too much.
func backoff(fails int, err error) time.Duration {
	least, most := 50*time.Millisecond, 1500*time.Millisecond
	if refusal(err) {
		least, most = 10*time.Second, time.Minute
	}
	return jitter(min(most, least<<min(max(fails-1, 0), 10)))
}

// jitter is the duration, give or take a quarter.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()-0.5)/2*float64(d))
}

// pause is false if the context ends within the duration.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
