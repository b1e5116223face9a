package main

import (
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
)

func main() {
	var o options
	flag.DurationVar(&o.during, "for", 10*time.Minute, "how long")
	flag.Uint64Var(&o.seed, "seed", 0, "of what happens; 0 for any")
	flag.IntVar(&o.services, "services", 30, "in Consul that are there all the time")
	flag.IntVar(&o.rate, "rate", 300, "requests a second")
	flag.StringVar(&o.haproxy, "haproxy", "haproxy", "the haproxy program")
	flag.Parse()
	if flag.NArg() > 0 || o.during <= 0 || o.services < 1 || o.rate < 1 {
		fmt.Fprintln(os.Stderr, "soak: -for is a duration, -services and -rate are numbers above 0; see -help")
		os.Exit(2)
	}
	if o.seed == 0 {
		o.seed = uint64(time.Now().UnixNano()) % 1_000_000
	}
	os.Exit(program.Run("soak", func(p *program.Program) {
		run(p.Context(), p, o)
	}))
}
