package marathon

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// commands is a member that notes what it is told.
type commands struct {
	mu   sync.Mutex
	told []string
	t    *testing.T
}

func (c *commands) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	c.told = append(c.told, r.Method+" "+r.URL.RequestURI()+" "+string(body))
	c.mu.Unlock()
	if user, password, _ := r.BasicAuth(); user != "edge" || password != "sesame" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v2/info":
		fixture, _ := os.ReadFile("testdata/info.json")
		w.Write(fixture)
	case "GET /v2/leader":
		fmt.Fprint(w, `{"leader":"10.0.0.1:8080"}`)
	case "GET /v2/deployments":
		fixture, _ := os.ReadFile("testdata/deployments.json")
		w.Write(fixture)
	case "PUT /v2/apps/shop/web":
		fmt.Fprint(w, `{"version":"v","deploymentId":"d-1"}`)
	case "PUT /v2/apps/locked":
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"message":"App is locked by one or more deployments.","deployments":[{"id":"d"}]}`)
	case "POST /v2/tasks/delete":
		fmt.Fprint(w, `{"version":"v","deploymentId":"d-2"}`)
	default:
		http.NotFound(w, r)
	}
}

func clientFor(t *testing.T, urls []string, change func(*Config)) *Client {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	config := Config{URLs: urls, Username: "edge", PasswordFile: file}
	if change != nil {
		change(&config)
	}
	c, err := NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestCommandsReachTheFirstMemberThatServes(t *testing.T) {
	told := &commands{t: t}
	fine := httptest.NewServer(told)
	defer fine.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) }))
	defer broken.Close()
	down := httptest.NewServer(nil)
	down.Close()
	c := clientFor(t, []string{down.URL, broken.URL, fine.URL}, nil)

	info, err := c.Info(t.Context())
	if err != nil || info.Version != "1.5.0-SNAPSHOT" || info.Leader != "localhost:8080" {
		t.Errorf("%+v %v", info, err)
	}
	if leader, err := c.Leader(t.Context()); err != nil || leader != "10.0.0.1:8080" {
		t.Error(leader, err)
	}
	deployments, err := c.Deployments(t.Context())
	if err != nil || len(deployments) != 1 || deployments[0].ID != "97c136bf-5a28-4821-9d94-480d9fbb01c8" ||
		deployments[0].Step != 1 || deployments[0].Steps != 2 || !slices.Equal(deployments[0].Apps, []string{"/foo"}) {
		t.Errorf("%+v %v", deployments, err)
	}
	if id, err := c.Scale(t.Context(), "/shop/web", 3, true); err != nil || id != "d-1" {
		t.Error(id, err)
	}
	if err := c.KillTask(t.Context(), "web.instance-1._app.1", true); err != nil {
		t.Error(err)
	}
	if _, err := c.Scale(t.Context(), "/locked", 3, false); err == nil || !strings.Contains(err.Error(), "locked by one or more deployments") {
		t.Error(err)
	}
	for _, id := range []string{"", "web", "/../leader", "/a?force=true"} {
		if _, err := c.Scale(t.Context(), id, 1, false); err == nil {
			t.Errorf("%q scaled", id)
		}
	}
	if _, err := c.Scale(t.Context(), "/shop/web", -1, false); err == nil {
		t.Error("scaled below zero")
	}
	var scaled, killed bool
	for _, line := range told.told {
		scaled = scaled || strings.HasPrefix(line, "PUT /v2/apps/shop/web?force=true ") && strings.Contains(line, `"instances":3`)
		killed = killed || line == `POST /v2/tasks/delete?scale=true {"ids":["web.instance-1._app.1"]}`
	}
	if !scaled || !killed {
		t.Errorf("%q", told.told)
	}
}

func TestCommandToNobodyFailsAndLeavesNothingRunning(t *testing.T) {
	down := httptest.NewServer(nil)
	down.Close()
	c := clientFor(t, []string{down.URL}, nil)
	before := runtime.NumGoroutine()
	for range 20 {
		if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Fatal(err)
		}
	}
	if n := runtime.NumGoroutine(); n > before+5 {
		t.Errorf("%d goroutines before, %d after", before, n)
	}
}

func TestErrorsNameTheMemberAndNeverThePassword(t *testing.T) {
	server := httptest.NewServer(&commands{t: t})
	defer server.Close()
	c := clientFor(t, []string{server.URL}, func(c *Config) { c.Username = "somebody" })
	_, err := c.Info(t.Context())
	if err == nil || strings.Contains(err.Error(), "sesame") || !strings.Contains(err.Error(), strings.TrimPrefix(server.URL, "http://")) ||
		!strings.Contains(err.Error(), "password_file") {
		t.Error(err)
	}
	c = clientFor(t, []string{server.URL}, func(c *Config) { c.PasswordFile = "/nonexistent/password" })
	if _, err := c.Info(t.Context()); err == nil || !strings.Contains(err.Error(), "/nonexistent/password") {
		t.Error(err)
	}
}

func TestCertificatesAreVerifiedAgainstTheConfiguredCA(t *testing.T) {
	server := httptest.NewTLSServer(&commands{t: t})
	defer server.Close()
	server.Config.ErrorLog = nil
	if _, err := clientFor(t, []string{server.URL}, nil).Info(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := clientFor(t, []string{server.URL}, func(c *Config) { c.CAFile = ca }).Info(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestConfigurationIsChecked(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]Config{
		"at least one url": {},
		"must be like":     {URLs: []string{"10.0.0.1"}},
		"does not parse":   {URLs: []string{"http://edge:sesame@[::1"}},
		"holds credential": {URLs: []string{"http://edge:sesame@10.0.0.1:8080"}},
		"after the path":   {URLs: []string{"http://10.0.0.1:8080/?x=y"}},
		"CA certificates":  {URLs: []string{"https://10.0.0.1"}, CAFile: "/nonexistent"},
		"no certificate":   {URLs: []string{"https://10.0.0.1"}, CAFile: empty},
	} {
		_, err := New(c)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", want, err)
		}
	}
	w, err := New(Config{URLs: []string{"https://Marathon.example.com/service/marathon/"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := w.Source().String(); got != "marathon/marathon.example.com:443" {
		t.Error(got)
	}
}
