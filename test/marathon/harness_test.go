package marathon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mi-lb/mi-lb/test/marathon"
)

// patience bounds every wait; nothing is expected to take it.
const patience = 30 * time.Second

func start(t *testing.T, options marathon.Options) *marathon.Cluster {
	t.Helper()
	cluster, err := marathon.Start(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cluster.Close)
	return cluster
}

func fake(t *testing.T) *marathon.Cluster { return start(t, marathon.Options{Fake: true}) }

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never came true: %s", what)
}

// call makes a request and gives the answer's status and body.
func call(t *testing.T, method, url string, body any) (int, string) {
	t.Helper()
	status, text, err := try(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return status, text
}

func try(method, url string, body any) (int, string, error) {
	var content []byte
	switch body := body.(type) {
	case nil:
	case string:
		content = []byte(body)
	case []byte:
		content = body
	default:
		var err error
		if content, err = json.Marshal(body); err != nil {
			return 0, "", err
		}
	}
	request, err := http.NewRequest(method, url, bytes.NewReader(content))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, Timeout: patience}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, string(read), err
}

// must makes a request that has to succeed, and decodes the answer.
func must(t *testing.T, method, url string, body any) map[string]any {
	t.Helper()
	status, text := call(t, method, url, body)
	if status >= 300 {
		t.Fatalf("%s %s: %d %s", method, url, status, text)
	}
	return decode(t, text)
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var document map[string]any
	if err := json.Unmarshal([]byte(text), &document); err != nil {
		t.Fatalf("decode %q: %v", text, err)
	}
	return document
}

// at follows keys and indices into a document.
func at(t *testing.T, document any, path ...any) any {
	t.Helper()
	for _, step := range path {
		switch step := step.(type) {
		case string:
			object, ok := document.(map[string]any)
			if !ok {
				t.Fatalf("%v: %v is no object", path, document)
			}
			document = object[step]
		case int:
			list, ok := document.([]any)
			if !ok || step >= len(list) {
				t.Fatalf("%v: %v has no element %d", path, document, step)
			}
			document = list[step]
		}
	}
	return document
}

func deployed(t *testing.T, cluster *marathon.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := cluster.WaitDeployments(ctx); err != nil {
		t.Fatal(err)
	}
}

func waitTasks(t *testing.T, cluster *marathon.Cluster, app, what string, holds func([]marathon.Task) bool) []marathon.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tasks, err := cluster.WaitTasks(ctx, app, holds)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	return tasks
}

func running(n int) func([]marathon.Task) bool {
	return func(tasks []marathon.Task) bool {
		return len(tasks) == n && !slices.ContainsFunc(tasks, func(task marathon.Task) bool { return task.State != "TASK_RUNNING" })
	}
}

func sample(t *testing.T, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// sent is one event as a client reads it.
type sent struct {
	kind string
	data map[string]any
}

// events is a client of the event stream.
type events struct {
	t        *testing.T
	response *http.Response
	received chan sent
	ended    chan error
}

// subscribe attaches to the event stream and reads it until the test's end.
func subscribe(t *testing.T, url string) *events {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	if response.StatusCode != http.StatusOK {
		t.Fatalf("event stream: %s", response.Status)
	}
	e := &events{t: t, response: response, received: make(chan sent, 10_000), ended: make(chan error, 1)}
	go func() { e.ended <- e.read() }()
	return e
}

func (e *events) read() error {
	lines := bufio.NewReader(e.response.Body)
	kind := ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return err
		}
		if !strings.HasSuffix(line, "\r\n") {
			return fmt.Errorf("a line ends without CR LF: %.100q", line)
		}
		switch name, value, _ := strings.Cut(strings.TrimSuffix(line, "\r\n"), ": "); name {
		case "":
		case "event":
			kind = value
		case "data":
			var data map[string]any
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				return err
			}
			e.received <- sent{kind, data}
		default:
			return fmt.Errorf("unexpected line %.100q", line)
		}
	}
}

// next gives the next event.
func (e *events) next() sent {
	e.t.Helper()
	select {
	case event := <-e.received:
		return event
	case err := <-e.ended:
		e.t.Fatalf("the stream ended: %v", err)
	case <-time.After(patience):
		e.t.Fatal("no event came")
	}
	return sent{}
}

// until reads events up to the first one that holds, and gives all of them.
func (e *events) until(what string, holds func(sent) bool) []sent {
	e.t.Helper()
	var read []sent
	for {
		select {
		case event := <-e.received:
			read = append(read, event)
			if holds(event) {
				return read
			}
		case err := <-e.ended:
			e.t.Fatalf("the stream ended before %s: %v; read %v", what, err, kinds(read))
		case <-time.After(patience):
			e.t.Fatalf("never came: %s; read %v", what, kinds(read))
		}
	}
}

func (e *events) untilKind(kind string) []sent {
	e.t.Helper()
	return e.until(kind, func(event sent) bool { return event.kind == kind })
}

// end waits for the stream's end.
func (e *events) end() {
	e.t.Helper()
	select {
	case err := <-e.ended:
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			e.t.Fatalf("the stream ended with %v", err)
		}
	case <-time.After(patience):
		e.t.Fatal("the stream did not end")
	}
}

func kinds(read []sent) []string {
	var kinds []string
	for _, event := range read {
		kinds = append(kinds, event.kind)
	}
	return kinds
}

func keys(document map[string]any) []string {
	var keys []string
	for key := range document {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

const tryOut = `{"id":"webserver","cmd":"python3 -m http.server 8080","cpus":0.5,"mem":64.0,"instances":1,
	"container":{"type":"DOCKER","docker":{"image":"python","network":"BRIDGE",
	"portMappings":[{"containerPort":8080,"hostPort":0,"servicePort":9000,"protocol":"tcp"}]}}}`
