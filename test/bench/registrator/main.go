// Command registrator measures what a registrator costs on a host with many
// containers: CPU while nothing happens, connections to Docker and Consul, and
// how long it takes from a container's start or stop to the agent's answer. It
// starts a private Docker Engine and a Consul agent, and needs root.
//
//	go run ./test/bench/registrator -containers 500 -idle 2m
//
// The containers share the host's network, so that what is measured is not how
// long Docker takes to make networks.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/test/consul"
	"github.com/mi-lb/mi-lb/test/docker"
	"github.com/mi-lb/mi-lb/watch/registrator"
)

// The registrator runs in a process of its own, so that its costs are told apart
// from those of measuring.
const (
	childDocker = "REGISTRATOR_BENCH_DOCKER"
	childConsul = "REGISTRATOR_BENCH_CONSUL"
	host        = "bench"
)

// Ports from here on are those of containers: above those that the kernel gives to
// outgoing connections, and that tests choose from.
const (
	firstPort  = 61000
	changePort = 64000
)

func main() {
	containers := flag.Int("containers", 500, "how many containers")
	idle := flag.Duration("idle", 2*time.Minute, "how long to measure while nothing happens")
	changes := flag.Int("changes", 50, "how many starts and stops to time")
	flag.Parse()
	if *containers > changePort-firstPort || *changes > 1<<16-changePort {
		fmt.Fprintf(os.Stderr, "at most %d containers and %d changes\n", changePort-firstPort, 1<<16-changePort)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var err error
	if os.Getenv(childDocker) != "" {
		err = register(ctx)
	} else {
		err = measure(ctx, *containers, *idle, *changes)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func register(ctx context.Context) error {
	engine, err := registrator.NewEngineAt(os.Getenv(childDocker))
	if err != nil {
		return err
	}
	agent, err := registrator.NewAgent("consul://" + os.Getenv(childConsul))
	if err != nil {
		return err
	}
	r, err := registrator.New(registrator.Options{
		Policy: registrator.Policy{Host: host, Address: "127.0.0.1"},
		Engine: engine, Agent: agent, RetryAttempts: -1, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	return r.Run(ctx)
}

func measure(ctx context.Context, containers int, idle time.Duration, changes int) error {
	engine, err := docker.Start(ctx, docker.Options{})
	if err != nil {
		return err
	}
	defer engine.Stop()
	agent, err := consul.Start(ctx, consul.Options{})
	if err != nil {
		return err
	}
	defer agent.Stop()
	if err := agent.WaitLeader(ctx); err != nil {
		return err
	}
	if err := engine.Import(ctx, "web"); err != nil {
		return err
	}
	started := time.Now()
	if err := start(ctx, engine, containers); err != nil {
		return err
	}
	fmt.Printf("%d containers started in %.0f s\n", containers, time.Since(started).Seconds())

	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.CommandContext(ctx, self)
	child.Env = append(os.Environ(), childDocker+"="+engine.Host(), childConsul+"="+agent.HTTPAddress())
	child.Stderr = os.Stderr
	started = time.Now()
	if err := child.Start(); err != nil {
		return err
	}
	defer func() {
		_ = child.Process.Signal(syscall.SIGTERM)
		_ = child.Wait()
	}()
	client := agent.Client()
	if err := await(ctx, client, func(s map[string]*api.AgentService) bool { return len(s) >= containers }); err != nil {
		return err
	}
	cpu, err := cpuTime(child.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("all registered %.2f s after registrator's start, with %.2f s of CPU\n", time.Since(started).Seconds(), cpu.Seconds())

	// The connections that the first inspections opened are closed after 30 s of rest.
	if err := rest(ctx, 35*time.Second); err != nil {
		return err
	}
	before, err := cpuTime(child.Process.Pid)
	if err != nil {
		return err
	}
	if err := rest(ctx, idle); err != nil {
		return err
	}
	after, err := cpuTime(child.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("idle for %s: %.3f %% of one CPU (%d ms)\n", idle, 100*(after-before).Seconds()/idle.Seconds(), (after - before).Milliseconds())
	unix, tcp, err := connections(child.Process.Pid)
	if err != nil {
		return err
	}
	resident, err := residentMegabytes(child.Process.Pid)
	if err != nil {
		return err
	}
	fmt.Printf("connections: %d to Docker, %d to Consul; %d MB resident\n", unix, tcp, resident)
	return timeChanges(ctx, engine, client, changes)
}

func start(ctx context.Context, engine *docker.Engine, containers int) error {
	errs := make(chan error, containers)
	slots := make(chan struct{}, 4)
	var all sync.WaitGroup
	for i := range containers {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			_, err := run(ctx, engine, "c"+strconv.Itoa(i), firstPort+i)
			errs <- err
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	running, err := engine.Docker(ctx, "ps", "-q")
	if n := len(strings.Fields(running)); err == nil && n != containers {
		err = fmt.Errorf("%d of %d containers run: somebody else has the ports of the others", n, containers)
	}
	return err
}

func run(ctx context.Context, engine *docker.Engine, name string, port int) (string, error) {
	return engine.Docker(ctx, "run", "-d", "--name", name, "--net=host", "-e", "MARATHON_APP_ID=/web", "-e", "SERVICE_TAGS=a,b",
		"-e", fmt.Sprintf("PORTS=%d", port), "web", "/testserver", "-listen", fmt.Sprintf("127.0.0.1:%d", port), "-grace", "2s")
}

// timeChanges starts and stops containers one by one.
func timeChanges(ctx context.Context, engine *docker.Engine, client *api.Client, changes int) error {
	var registered, drained []time.Duration
	for i := range changes {
		name, port := "change"+strconv.Itoa(i), changePort+i
		id := fmt.Sprintf("%s:%s:%d", host, name, port)
		if _, err := run(ctx, engine, name, port); err != nil {
			return err
		}
		since := time.Now()
		if text, err := engine.Docker(ctx, "inspect", "--format", "{{.State.StartedAt}}", name); err == nil {
			if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
				since = at
			}
		}
		if err := await(ctx, client, func(s map[string]*api.AgentService) bool { return s[id] != nil }); err != nil {
			return err
		}
		registered = append(registered, time.Since(since))

		since = time.Now()
		stopped := make(chan error, 1)
		go func() {
			_, err := engine.Docker(ctx, "stop", "-t", "5", name)
			stopped <- err
		}()
		for {
			checks, err := client.Agent().ChecksWithFilterOpts(fmt.Sprintf("ServiceID == %q", id), nil)
			if err != nil {
				return err
			}
			if checks["_service_maintenance:"+id] != nil {
				break
			}
			if err := rest(ctx, time.Millisecond); err != nil {
				return err
			}
		}
		drained = append(drained, time.Since(since))
		if err := <-stopped; err != nil {
			return err
		}
	}
	report := func(what string, all []time.Duration) {
		slices.Sort(all)
		fmt.Printf("%s: median %d ms, worst of %d %d ms (polling included)\n", what, all[len(all)/2].Milliseconds(), len(all), all[len(all)-1].Milliseconds())
	}
	if changes > 0 {
		report("from a container's start to its registration", registered)
		report("from docker stop's start to maintenance", drained)
	}
	return nil
}

func await(ctx context.Context, client *api.Client, is func(map[string]*api.AgentService) bool) error {
	for {
		services, err := client.Agent().Services()
		if err != nil {
			return err
		}
		if is(services) {
			return nil
		}
		if err := rest(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

func rest(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// cpuTime is what a process has used, user and system, in the kernel's ticks of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond, err
}

func residentMegabytes(pid int) (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	return pages * os.Getpagesize() >> 20, err
}

// connections counts a process's connected sockets: Unix ones, which lead to
// Docker, and TCP ones, which lead to Consul.
func connections(pid int) (unix, tcp int, err error) {
	inodes := func(file string, column int, established func([]string) bool) (map[string]bool, error) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, file))
		found := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > column && established(fields) {
				found["socket:["+fields[column]+"]"] = true
			}
		}
		return found, err
	}
	unixes, err := inodes("unix", 6, func(f []string) bool { return f[5] == "03" })
	if err != nil {
		return 0, 0, err
	}
	tcps, err := inodes("tcp", 9, func(f []string) bool { return f[3] == "01" })
	if err != nil {
		return 0, 0, err
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, file := range files {
		target, err := os.Readlink(file)
		switch {
		case err != nil:
		case unixes[target]:
			unix++
		case tcps[target]:
			tcp++
		}
	}
	return unix, tcp, err
}
