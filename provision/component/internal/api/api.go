// Package api asks the programs of the platform over HTTP, through the connection
// to the machine that they are on.
//
// In come a machine and a request; out come the answer and its status, or why there
// is none. Passwords go into headers only and never into errors.
package api

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/provision/component"
	"github.com/mi-lb/mi-lb/provision/secrets"
)

// Request is what is asked.
type Request struct {
	Method string // empty is GET
	// URL has the address as the machine reaches it.
	URL string
	// Login is for basic authentication; the zero value sends none.
	Login secrets.Login
	// Token is Consul's; empty sends none.
	Token string
	// Host, where it is set, goes into the header instead of the URL's.
	Host string
	// Body is sent as JSON; nil sends none.
	Body any
}

// patience is how long one answer may take: health is asked for again and again,
// and one program that hangs must not hold that up.
const patience = 15 * time.Second

// most is how much of an answer is read, in bytes.
const most = 64 << 20

// Do asks from a machine. Redirects are not followed. The error is about having no
// answer: any status is one.
func Do(ctx context.Context, host component.Host, r Request) (body []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var content io.Reader
	if r.Body != nil {
		encoded, err := json.Marshal(r.Body)
		if err != nil {
			return nil, 0, fmt.Errorf("encode the request to %s: %w", r.URL, err)
		}
		content = bytes.NewReader(encoded)
	}
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	request, err := http.NewRequestWithContext(ctx, method, r.URL, content)
	if err != nil {
		return nil, 0, fmt.Errorf("ask %s: %w", r.URL, err)
	}
	request.Close = true
	if r.Body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	request.Header.Set("Accept", "application/json, text/plain, */*")
	if r.Login.User != "" {
		request.SetBasicAuth(r.Login.User, r.Login.Password.Reveal())
	}
	if r.Token != "" {
		request.Header.Set("X-Consul-Token", r.Token)
	}
	if r.Host != "" {
		request.Host = r.Host
	}
	client := host.HTTPClient("", "")
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return nil, 0, err // names the method and the URL
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(response.Body, most)); err != nil {
		return nil, response.StatusCode, fmt.Errorf("read the answer of %s: %w", r.URL, err)
	}
	return body, response.StatusCode, nil
}

// JSON asks, and decodes an answer of status 200 or 202; any other one is an error.
func JSON(ctx context.Context, host component.Host, r Request, into any) error {
	body, status, err := Do(ctx, host, r)
	if err != nil {
		return err
	}
	if status != http.StatusOK && status != http.StatusAccepted {
		return &StatusError{URL: r.URL, Status: status, Body: short(body)}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read the answer of %s: %w", r.URL, err)
	}
	return nil
}

// StatusError is an answer that says no.
type StatusError struct {
	URL    string
	Status int
	Body   string // its beginning, on one line
}

// Error names the address and what it answered.
func (e *StatusError) Error() string {
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden {
		return fmt.Sprintf("%s answers %d: it does not accept the secrets of the bundle", e.URL, e.Status)
	}
	return strings.TrimSuffix(fmt.Sprintf("%s answers %d: %s", e.URL, e.Status, e.Body), ": ")
}

func short(body []byte) string {
	text := strings.Join(strings.Fields(string(body)), " ")
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…"
	}
	return text
}
