package hosts

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"
)

// mirror is an HTTP proxy for apt that keeps what it fetched: files that never
// change for good, others for when the mirrors cannot be asked.
type mirror struct {
	dir    string
	hosts  []string // that it forwards to
	client *http.Client
	flight singleflight.Group
	server *http.Server
}

// startMirror serves at an address until it is closed.
func startMirror(dir string, hosts []string, address string) (m *mirror, url string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, "", fmt.Errorf("start the packages' proxy: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "0"))
	if err != nil {
		return nil, "", fmt.Errorf("start the packages' proxy: %w", err)
	}
	m = &mirror{dir: dir, hosts: hosts, client: &http.Client{Timeout: 5 * time.Minute}}
	m.server = &http.Server{Handler: m, ReadHeaderTimeout: 30 * time.Second}
	go m.server.Serve(listener)
	return m, "http://" + listener.Addr().String(), nil
}

func (m *mirror) close() { _ = m.server.Close() }

// ServeHTTP answers a request for an absolute URL.
func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !r.URL.IsAbs() || r.URL.Scheme != "http" || !slices.Contains(m.hosts, r.URL.Host) {
		http.Error(w, "only apt's sources are to be had here", http.StatusForbidden)
		return
	}
	url := r.URL.String()
	path := filepath.Join(m.dir, fileName(url))
	// Not the request's context: others may wait for the same file.
	_, err, _ := m.flight.Do(url, func() (any, error) { return nil, m.fetch(context.Background(), url, path) })
	var missing *statusError
	switch {
	case errors.As(err, &missing):
		http.Error(w, missing.Error(), missing.code)
		return
	case err != nil:
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	file, err := os.Open(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), file)
}

// fetch sees to it that the file holds what is at the URL.
func (m *mirror) fetch(ctx context.Context, url, path string) error {
	info, statErr := os.Stat(path)
	cached := statErr == nil
	if cached && (strings.Contains(url, "/pool/") || strings.Contains(url, "/by-hash/")) {
		return nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	if cached {
		request.Header.Set("If-Modified-Since", info.ModTime().UTC().Format(http.TimeFormat))
	}
	response, err := m.client.Do(request)
	if err != nil {
		if cached {
			return nil
		}
		return err
	}
	defer response.Body.Close()
	switch {
	case response.StatusCode == http.StatusNotModified,
		response.StatusCode >= http.StatusInternalServerError && cached:
		return nil
	case response.StatusCode != http.StatusOK:
		return &statusError{response.StatusCode, url}
	}
	return store(path, response)
}

// store writes an answer to a file, which is there whole or not at all.
func store(path string, response *http.Response) error {
	file, err := os.CreateTemp(filepath.Dir(path), "part-")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	n, err := io.Copy(file, response.Body)
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	if response.ContentLength >= 0 && n != response.ContentLength {
		return io.ErrUnexpectedEOF
	}
	if at, err := http.ParseTime(response.Header.Get("Last-Modified")); err == nil {
		if err := os.Chtimes(file.Name(), at, at); err != nil {
			return err
		}
	}
	return os.Rename(file.Name(), path)
}

// fileName is where an URL's content is kept; its end is for people.
func fileName(url string) string {
	sum := sha256.Sum256([]byte(url))
	base := url[strings.LastIndexByte(url, '/')+1:]
	return hex.EncodeToString(sum[:8]) + "-" + base[max(0, len(base)-100):]
}

// statusError is an answer that is not the file.
type statusError struct {
	code int
	url  string
}

func (e *statusError) Error() string { return fmt.Sprintf("%s: status %d", e.url, e.code) }
