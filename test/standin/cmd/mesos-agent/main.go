// Command mesos-agent stands in for Mesos's in tests of provisioning.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/mi-lb/mi-lb/test/standin/agent"
	"github.com/mi-lb/mi-lb/test/standin/flags"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	v, err := flags.Mesos(flags.Agent(), nil, os.Args[1:], os.Environ())
	if err == nil && v.Bool("version", false) {
		fmt.Println("mesos " + agent.Version)
		return
	}
	if err == nil {
		err = agent.Run(ctx, v, os.Environ(), slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesos-agent:", err)
		os.Exit(1)
	}
}
