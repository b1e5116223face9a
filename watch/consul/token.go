package consul

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// tokenFile is an ACL token that is read again when its file changes. With no
// path the token is empty for ever, and api.Client's own rules apply.
type tokenFile struct {
	path string

	mu      sync.Mutex
	value   string
	changed chan struct{}
}

func readToken(path string) (*tokenFile, error) {
	t := &tokenFile{path: path, changed: make(chan struct{})}
	if path == "" {
		return t, nil
	}
	value, err := t.read()
	t.value = value
	return t, err
}

func (t *tokenFile) read() (string, error) {
	text, err := os.ReadFile(t.path)
	if err != nil {
		return "", fmt.Errorf("read Consul token: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// get is the token, and a channel that is closed when it is no longer the token.
func (t *tokenFile) get() (string, <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.value, t.changed
}

// follow looks at the file every second. While it cannot be read, or is empty as
// it is for a moment when somebody writes it in place, the last token stays.
func (t *tokenFile) follow(ctx context.Context, log *slog.Logger) {
	if t.path == "" {
		return
	}
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	unreadable := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		value, err := t.read()
		if err != nil {
			if !unreadable {
				log.Warn("the token file cannot be read; the last token stays in use", "error", err)
			}
			unreadable = true
			continue
		}
		unreadable = false
		t.mu.Lock()
		if value != "" && value != t.value {
			t.value = value
			close(t.changed)
			t.changed = make(chan struct{})
			log.Info("Consul token changed", "file", t.path)
		}
		t.mu.Unlock()
	}
}
