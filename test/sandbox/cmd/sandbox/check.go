package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mi-lb/mi-lb/test/sandbox"
)

// check pastes the try-out into a shell, prints what comes, and is an error if any
// of it is not what it should be.
func check(ctx context.Context, box *sandbox.Sandbox, try tryOut, out io.Writer) error {
	fmt.Fprintln(out, "\nchecking:")
	// Asked once only: an app that exists cannot be posted again.
	said, err := shell(ctx, try.deploy)
	if err == nil {
		err = contains(`"id":"/webserver"`)(said)
	}
	show(out, try.deploy, said, "")
	if err != nil {
		return fmt.Errorf("the check failed:\n%s: %w", try.deploy, err)
	}
	host := "webserver." + box.Options.Domain
	var errs []error
	for i := range box.Sites {
		// The app runs in the first datacenter; the others reach it there.
		serving := contains("no local server can serve; 1 server of other datacenters:")
		if i == 0 {
			serving = contains("over 1 server:")
		}
		listing := contains("Directory listing")
		errs = append(errs,
			paste(ctx, out, try.byName[i], listing),
			paste(ctx, out, try.byPort[i], listing),
			paste(ctx, out, try.routes[i], all(contains("BECAUSE OF"), contains(host+"/"), contains("servicePort of /webserver"))),
			paste(ctx, out, try.explainName[i], all(contains(`leads to service "webserver", because of its name`), serving)),
			paste(ctx, out, try.explainPort[i], all(contains(`for service "webserver", because of servicePort of /webserver`), serving)),
		)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("the check failed:\n%w", err)
	}
	fmt.Fprintln(out, "\nall of it is as it should be")
	return nil
}

// paste runs a line until what comes is right, as whoever pastes by hand would: an
// app takes a moment to start.
func paste(ctx context.Context, out io.Writer, line string, right func(string) error) error {
	began := time.Now()
	for {
		said, err := shell(ctx, line)
		if err == nil {
			err = right(said)
		}
		if err == nil {
			show(out, line, said, fmt.Sprintf(" (after %.2f s)", time.Since(began).Seconds()))
			return nil
		}
		select {
		case <-ctx.Done():
			show(out, line, said, fmt.Sprintf(" (WRONG: %v)", err))
			return fmt.Errorf("%s: %w", line, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// show prints a line and the beginning of what came.
func show(out io.Writer, line, said, remark string) {
	const mostLines, mostBytes = 12, 160
	fmt.Fprintf(out, "\n$ %s%s\n", line, remark)
	lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
	for i, text := range lines {
		if i == mostLines {
			fmt.Fprintf(out, "  … and %d lines more\n", len(lines)-mostLines)
			break
		}
		if len(text) > mostBytes {
			text = text[:mostBytes] + " …"
		}
		fmt.Fprintf(out, "  %s\n", text)
	}
}

// shell runs a line as it is, without what curl shows of its progress. The shell
// and what it started end with the context, and with this program.
func shell(ctx context.Context, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	var stdout, stderr bytes.Buffer
	command.Stdout, command.Stderr = &stdout, &stderr
	if err := command.Run(); err != nil {
		// Behind curl's progress comes what is wrong.
		last := strings.TrimSpace(stderr.String())
		return stdout.String(), fmt.Errorf("%w: %s", err, last[strings.LastIndexAny(last, "\r\n")+1:])
	}
	return stdout.String(), nil
}

func contains(text string) func(string) error {
	return func(said string) error {
		if !strings.Contains(said, text) {
			return fmt.Errorf("it does not say %q", text)
		}
		return nil
	}
}

func all(checks ...func(string) error) func(string) error {
	return func(said string) error {
		var errs []error
		for _, check := range checks {
			errs = append(errs, check(said))
		}
		return errors.Join(errs...)
	}
}
