package report

import (
	"fmt"
	"slices"
	"time"
)

// Quantile of values, p from 0 to 1: the smallest that so large a share is not above.
// There must be one.
func Quantile(values []time.Duration, p float64) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	at := int(p*float64(len(sorted))+0.999999) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}

// Milliseconds as a cell: "8.1 ms", "290 ms", "1.2 s".
func Milliseconds(d time.Duration) string {
	ms := float64(d.Microseconds()) / 1000
	switch {
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0f ms", ms)
	default:
		return fmt.Sprintf("%.1f s", ms/1000)
	}
}

// Seconds of CPU as a cell.
func Seconds(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s < 0.1:
		return fmt.Sprintf("%.4f s", max(s, 0))
	case s < 10:
		return fmt.Sprintf("%.2f s", s)
	default:
		return fmt.Sprintf("%.0f s", s)
	}
}

// Megabytes as a cell.
func Megabytes(bytes int64) string { return fmt.Sprintf("%.0f MB", float64(bytes)/(1<<20)) }

// Percent of one core as a cell.
func Percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

// Fine is a short time as a cell: "0.85 ms".
func Fine(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }
