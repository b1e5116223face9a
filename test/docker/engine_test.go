package docker_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/docker"
)

func TestAnEngineRunsContainersAndLeavesNothingBehind(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, err := docker.Start(ctx, docker.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Stop)
	if err := e.Import(ctx, "web", "EXPOSE 80"); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Docker(ctx, "run", "-d", "--name", "web", "-p", "127.0.0.1::80", "web", "/testserver", "-text", "hello"); err != nil {
		t.Fatal(err)
	}
	address, err := e.Docker(ctx, "port", "web", "80")
	if err != nil {
		t.Fatal(err)
	}
	var body []byte
	for ctx.Err() == nil {
		response, err := http.Get("http://" + address + "/")
		if err == nil {
			body, _ = io.ReadAll(response.Body)
			response.Body.Close()
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if string(body) != "hello\n" {
		t.Errorf("the container answered %q", body)
	}
	e.Shutdown()
	if err := e.Relaunch(ctx); err != nil {
		t.Fatal(err)
	}
	if state, err := e.Docker(ctx, "inspect", "--format", "{{.State.Status}}", "web"); err != nil || state != "exited" {
		t.Errorf("after a restart of the engine the container is %q, %v; want exited", state, err)
	}
	e.Stop()
	if _, err := os.Stat(strings.TrimPrefix(e.Host(), "unix://")); !os.IsNotExist(err) {
		t.Errorf("the engine's folder is still there: %v", err)
	}
}
