// Command testserver is what runs in the containers of tests. It answers every
// HTTP request with its -text on each of its ports. /health?ok=false makes its
// HEALTHCHECK ("testserver -probe") fail, ok=true succeed.
package main

import (
	"context"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// unhealthy is the file whose existence makes the probe fail.
const unhealthy = "/unhealthy"

func main() {
	listen := flag.String("listen", ":80", "comma-separated `addresses` to listen on")
	text := flag.String("text", "ok", "what to answer")
	grace := flag.Duration("grace", 0, "how long to go on serving after SIGTERM")
	life := flag.Duration("life", 0, "how long to live; 0 is until told to end")
	code := flag.Int("code", 0, "the exit code after -life")
	probe := flag.Bool("probe", false, "run as HEALTHCHECK: exit 1 if the server was made unhealthy")
	flag.Parse()
	if *probe {
		if _, err := os.Stat(unhealthy); err == nil {
			fmt.Println("told to fail\nby /health")
			os.Exit(1)
		}
		return
	}
	if *life > 0 {
		time.AfterFunc(*life, func() { os.Exit(*code) })
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	http.HandleFunc("/health", setHealth)
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, *text) })
	for _, address := range strings.Split(*listen, ",") {
		go func() {
			fmt.Fprintln(os.Stderr, http.ListenAndServe(address, nil))
			os.Exit(1)
		}()
	}
	<-ctx.Done()
	time.Sleep(*grace)
}

func setHealth(w http.ResponseWriter, r *http.Request) {
	var err error
	if r.FormValue("ok") == "true" {
		err = os.Remove(unhealthy)
	} else {
		err = os.WriteFile(unhealthy, nil, 0o600)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
