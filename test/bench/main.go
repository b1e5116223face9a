package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/bench/report"
	"github.com/mi-lb/mi-lb/test/bench/subject"
	"github.com/mi-lb/mi-lb/test/edge"
)

// parts that there are, in the order in which they run.
var parts = []string{"scale", "propagation", "churn", "throughput", "recovery"}

// options are the flags.
type options struct {
	run      []string
	subjects []string
	quick    bool
	sizes    []size
	out      string
	haproxy  string
	verbose  bool
}

func (o options) runs(part string) bool { return slices.Contains(o.run, part) }

func main() {
	o, err := parse(os.Args[1:])
	if err == flag.ErrHelp {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v; see -help\n", err)
		os.Exit(2)
	}
	os.Exit(program.Run("bench", func(p *program.Program) {
		b := &bench{Program: p, options: o}
		b.all()
	}))
}

func parse(arguments []string) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	var o options
	run := flags.String("run", strings.Join(parts, ","), "the parts to run")
	subjects := flags.String("subjects", "", "beginnings of the names of the subjects to measure, by comma: mi-lb, consul-template; empty for all")
	services := flags.Int("services", 0, "measure at this one size only")
	instances := flags.Int("instances", 4, "of each service, with -services")
	nodes := flags.Int("nodes", 0, "in Consul, with -services; 0 for 50")
	flags.BoolVar(&o.quick, "quick", false, "small sizes and few repetitions: whether it works, not how fast it is")
	flags.StringVar(&o.out, "out", "", "directory for tables, charts and raw figures; docs/benchmarks, or nowhere with -quick")
	flags.StringVar(&o.haproxy, "haproxy", "haproxy", "the haproxy program, for all subjects")
	flags.BoolVar(&o.verbose, "v", false, "print what subjects log when they end")
	if err := flags.Parse(arguments); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unknown argument %q", flags.Arg(0))
	}
	o.run = strings.Split(*run, ",")
	for _, part := range o.run {
		if !slices.Contains(parts, part) {
			return o, fmt.Errorf("unknown part %q in -run; there are %s", part, strings.Join(parts, ", "))
		}
	}
	if *subjects != "" {
		o.subjects = strings.Split(*subjects, ",")
	}
	if *services < 0 || *instances < 1 || *nodes < 0 {
		return o, fmt.Errorf("-services, -instances and -nodes are numbers above 0")
	}
	switch {
	case *services > 0:
		o.sizes = []size{newSize(*services, *instances, *nodes)}
	case o.quick:
		o.sizes = []size{newSize(100, 3, 0)}
	default:
		o.sizes = []size{newSize(100, 3, 0), newSize(1000, 4, 0), newSize(5000, 4, 0), newSize(10000, 5, 0)}
	}
	if o.out == "" && !o.quick {
		o.out = "docs/benchmarks"
	}
	return o, nil
}

// size of a catalog.
type size struct {
	Services int `json:"services"`
	Each     int `json:"instancesOfEach"`
	Nodes    int `json:"nodes"`
}

func newSize(services, each, nodes int) size {
	if nodes == 0 {
		nodes = 50
	}
	return size{services, each, min(nodes, services)}
}

func (s size) String() string { return fmt.Sprintf("%s × %d", grouped(s.Services), s.Each) }

// grouped is a number as people read it: 10,000.
func grouped(n int) string {
	text := fmt.Sprint(n)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// bench is one run.
type bench struct {
	*program.Program
	options  options
	binaries subject.Binaries
	about    report.About
}

func (b *bench) all() {
	begin := time.Now()
	dir := b.TempDir()
	binary, err := edge.Build(b.Context(), dir)
	b.Check(err)
	b.binaries = subject.Binaries{MiLB: binary, HAProxy: b.options.haproxy}
	version := ""
	if slices.ContainsFunc(b.kinds(), func(k subject.Kind) bool { return k.Peer }) {
		b.Logf("building consul-template")
		b.binaries.ConsulTemplate, version, err = subject.BuildConsulTemplate(b.Context(), dir)
		b.Check(err)
	}
	b.about = report.NewAbout(b.Context(), b.binaries, version)
	if b.options.runs("scale") || b.options.runs("propagation") {
		b.sizes()
	}
	if b.options.runs("churn") {
		b.churn()
	}
	if b.options.runs("throughput") {
		b.throughput()
	}
	if b.options.runs("recovery") {
		b.recovery()
	}
	b.Logf("done in %s", time.Since(begin).Round(time.Second))
}

// kinds of subjects that the options ask for.
func (b *bench) kinds() []subject.Kind {
	all := []subject.Kind{subject.MiLB, subject.ConsulTemplate(0), subject.ConsulTemplate(100 * time.Millisecond)}
	if len(b.options.subjects) == 0 {
		return all
	}
	return slices.DeleteFunc(all, func(k subject.Kind) bool {
		return !slices.ContainsFunc(b.options.subjects, func(s string) bool { return strings.HasPrefix(k.Name, s) })
	})
}
