package main

import (
	"context"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"mi-lb": func() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) },
	})
}

// TestCommandLine runs the scripts in testdata/script, each a behaviour of the
// command line.
func TestCommandLine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			// HAProxy is in a directory that scripts' PATH does not have by itself.
			env.Setenv("PATH", env.Getenv("PATH")+":/usr/sbin:/sbin")
			return nil
		},
	})
}
