package main

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
)

// program lends itself to what is written for tests: what fails there ends it, and
// what they clean up is cleaned up at its end.
type program struct {
	testing.TB // never called: all that test/edge uses is below

	mu       sync.Mutex
	failed   bool
	cleanups []func()
}

// run returns the exit code.
func (p *program) run(do func()) int {
	ended := make(chan struct{})
	go func() { // Fatalf ends this goroutine
		defer close(ended)
		defer p.cleanup()
		do()
	}()
	<-ended
	if p.Failed() {
		return 1
	}
	return 0
}

func (p *program) cleanup() {
	for {
		p.mu.Lock()
		if len(p.cleanups) == 0 {
			p.mu.Unlock()
			return
		}
		last := p.cleanups[len(p.cleanups)-1]
		p.cleanups = slices.Delete(p.cleanups, len(p.cleanups)-1, len(p.cleanups))
		p.mu.Unlock()
		last()
	}
}

func (p *program) check(err error) {
	if err != nil {
		p.Fatal(err)
	}
}

func (p *program) Cleanup(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cleanups = append(p.cleanups, f)
}

func (p *program) Errorf(format string, arguments ...any) {
	p.Logf(format, arguments...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed = true
}

func (p *program) Failed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

func (p *program) Fatalf(format string, arguments ...any) {
	p.Errorf(format, arguments...)
	runtime.Goexit()
}

func (p *program) Logf(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, "propagation: "+format+"\n", arguments...)
}

func (p *program) TempDir() string {
	dir, err := os.MkdirTemp("", "propagation-")
	p.check(err)
	p.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (p *program) Error(arguments ...any) { p.Errorf("%s", fmt.Sprint(arguments...)) }
func (p *program) Fatal(arguments ...any) { p.Fatalf("%s", fmt.Sprint(arguments...)) }
func (p *program) Log(arguments ...any)   { p.Logf("%s", fmt.Sprint(arguments...)) }
func (p *program) Helper()                {}
