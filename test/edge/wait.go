package edge

import (
	"testing"
	"time"
)

// Patience is how long a test waits for what must happen: long enough for a machine
// that is busy with other things, too.
const Patience = 45 * time.Second

// Wait returns when the condition holds, which is asked for again and again, and how
// long that took. It fails the test, with the condition's last error, if that is not
// within [Patience].
func Wait(t testing.TB, what string, holds func() error) time.Duration {
	t.Helper()
	begin := time.Now()
	for {
		err := holds()
		if err == nil {
			return time.Since(begin)
		}
		if time.Since(begin) > Patience {
			t.Fatalf("not seen in %s: %s; last: %v", Patience, what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
