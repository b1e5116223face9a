// Command mesos-master stands in for Mesos's in tests of provisioning.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/mi-lb/mi-lb/test/standin/flags"
	"github.com/mi-lb/mi-lb/test/standin/master"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	v, err := flags.Mesos(flags.Master(), flags.MasterAliases(), os.Args[1:], os.Environ())
	if err == nil && v.Bool("version", false) {
		fmt.Println("mesos " + master.Version)
		return
	}
	if err == nil {
		err = master.Run(ctx, v, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesos-master:", err)
		os.Exit(1)
	}
}
