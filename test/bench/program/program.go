package program

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Program is a testing.TB for programs. Of that interface, it has what test/edge
// uses; the rest panics.
type Program struct {
	testing.TB

	name  string
	begin time.Time
	ctx   context.Context

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// Run does the work and returns the exit code: 0, 1 after a failure, 130 after
// SIGINT or SIGTERM. The name stands before each line of progress, on stderr.
func Run(name string, do func(*Program)) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &Program{name: name, begin: time.Now(), ctx: ctx}
	ended := make(chan struct{})
	go func() { // Fatalf ends this goroutine
		defer close(ended)
		do(p)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		stop() // a second signal ends it at once
		p.Logf("interrupted")
		p.Cleaned()
		return 130
	}
	p.Cleaned()
	if p.Failed() {
		return 1
	}
	return 0
}

// Scope does something and cleans up behind it at once, also if it fails, which ends
// the program's work all the same.
func (p *Program) Scope(do func()) {
	p.mu.Lock()
	from := len(p.cleanups)
	p.mu.Unlock()
	defer p.cleanedDownTo(from)
	do()
}

// Cleaned does what is left to clean up, the newest first.
func (p *Program) Cleaned() { p.cleanedDownTo(0) }

func (p *Program) cleanedDownTo(n int) {
	for {
		p.mu.Lock()
		if len(p.cleanups) <= n {
			p.mu.Unlock()
			return
		}
		last := p.cleanups[len(p.cleanups)-1]
		p.cleanups = slices.Delete(p.cleanups, len(p.cleanups)-1, len(p.cleanups))
		p.mu.Unlock()
		last()
	}
}

// Check ends the program's work if there is an error.
func (p *Program) Check(err error) {
	if err != nil {
		p.Fatal(err)
	}
}

// Context is cancelled when the program is interrupted.
func (p *Program) Context() context.Context { return p.ctx }

func (p *Program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

func (p *Program) Errorf(format string, arguments ...any) {
	p.Logf(format, arguments...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = true
}

func (p *Program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *Program) Fatalf(format string, arguments ...any) {
	p.Errorf(format, arguments...)
	runtime.Goexit()
}

// Logf prints a line of progress.
func (p *Program) Logf(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "%s %5.1fs: %s\n", p.name, time.Since(p.begin).Seconds(), fmt.Sprintf(format, arguments...))
}

func (p *Program) TempDir() string {
	dir, err := os.MkdirTemp("", p.name+"-")
	p.Check(err)
	p.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *Program) Error(arguments ...any) { p.Errorf("%s", fmt.Sprint(arguments...)) }
func (p *Program) Fatal(arguments ...any) { p.Fatalf("%s", fmt.Sprint(arguments...)) }
func (p *Program) Log(arguments ...any)   { p.Logf("%s", fmt.Sprint(arguments...)) }
func (p *Program) Helper()                {}
