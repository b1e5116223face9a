// Command marathon stands in for Marathon in tests of provisioning.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/mi-lb/mi-lb/test/standin/flags"
	"github.com/mi-lb/mi-lb/test/standin/scheduler"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	v, err := flags.Marathon(os.Args[1:], os.Environ())
	if err == nil {
		err = scheduler.Run(ctx, v, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "marathon:", err)
		os.Exit(1)
	}
}
