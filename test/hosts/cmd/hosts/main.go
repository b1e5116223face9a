// Command hosts runs test machines until it is interrupted:
//
//	go run ./test/hosts/cmd/hosts [-packages zookeeper,docker.io] control-01 worker-01 edge-01
//
// It prints the lines of an inventory that reaches them.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/mi-lb/mi-lb/test/hosts"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	packages := flag.String("packages", "", "packages that machines have already, with commas")
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 {
		names = []string{"machine-01"}
	}
	h, err := hosts.Open(ctx, hosts.Spec{Names: names, Packages: strings.FieldsFunc(*packages, func(r rune) bool { return r == ',' })})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer h.Close()
	for _, m := range h.Machines {
		fmt.Printf("%s ansible_host=%s ansible_user=%s ansible_ssh_private_key_file=%s\n", m.Name, m.Address, hosts.Admin, h.KeyFile)
	}
	fmt.Printf("# known hosts: %s\n# logins: %s, %s (sudo asks for the password), %s (no sudo), %s; password: %s\n# interrupt to remove them\n",
		h.KnownHosts, hosts.Admin, hosts.Deploy, hosts.Guest, hosts.Root, hosts.Password)
	<-ctx.Done()
}
