package main

import (
	"testing"
	"time"
)

func TestAnEdgeLivesThroughHalfAMinuteOfEverything(t *testing.T) {
	run(t.Context(), t, options{during: 30 * time.Second, seed: uint64(time.Now().UnixNano()) % 1_000_000, services: 10, rate: 100, haproxy: "haproxy"})
}
