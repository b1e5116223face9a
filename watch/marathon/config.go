package marathon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// Config describes one Marathon cluster.
type Config struct {
	// URLs of its members, at least one: "http://10.0.0.1:8080". A path is kept
	// as a prefix.
	URLs []string
	// Name of the source; empty for host:port of the first URL.
	Name string
	// Datacenter that the cluster's tasks run in.
	Datacenter string
	// Username for basic authentication; empty for none.
	Username string
	// PasswordFile holds the password. It is read again when Marathon answers 401.
	PasswordFile string
	// CAFile holds the certificates (PEM) to verify https members with; empty for
	// the system's.
	CAFile string
	// Logger; nil for none.
	Logger *slog.Logger
	// Saved is the part published before a restart, nil if there is none. Health
	// verdicts and addresses are taken over from it.
	Saved *watch.Part
	// Intervals; zero ones have defaults.
	Intervals Intervals

	// lookup and dial are replaced in tests.
	lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
}

// Intervals say when a watcher does what. The defaults suit real clusters.
type Intervals struct {
	// Resync is how often everything is read although the event stream is fine;
	// it varies by a fifth. Default 28 s, and longer where reading takes long.
	Resync time.Duration
	// Poll is how often everything is read while there is no event stream.
	// Default 5 s.
	Poll time.Duration
	// Idle is how long an event stream may be silent. Marathon sends something
	// every 10 s. Default 30 s.
	Idle time.Duration
	// Slow is when a read without an answer is tried a second time elsewhere,
	// and the part counts as stale. Default 4 s.
	Slow time.Duration
	// Read is how long a single request may take. Default 30 s.
	Read time.Duration
	// Retry is the first wait after a failure; it doubles up to RetryMost.
	// Defaults 250 ms and 3 s.
	Retry, RetryMost time.Duration
	// Confirm is how long a suddenly smaller list is held back before it is read
	// again. Default 2 s.
	Confirm time.Duration
	// Resolve is how long the address of an agent is remembered. Default 60 s.
	Resolve time.Duration
	// Linger is how long a task that has ended stays in the part, for the
	// registrations that outlive it. Default 2 min.
	Linger time.Duration
}

func (i Intervals) withDefaults() Intervals {
	for _, d := range []struct {
		value   *time.Duration
		instead time.Duration
	}{
		{&i.Resync, 28 * time.Second}, {&i.Poll, 5 * time.Second}, {&i.Idle, 30 * time.Second},
		{&i.Slow, 4 * time.Second}, {&i.Read, 30 * time.Second},
		{&i.Retry, 250 * time.Millisecond}, {&i.RetryMost, 3 * time.Second},
		{&i.Confirm, 2 * time.Second}, {&i.Resolve, time.Minute}, {&i.Linger, 2 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.instead
		}
	}
	return i
}

// members are the cluster's URLs, checked.
func (c Config) members() ([]*url.URL, error) {
	if len(c.URLs) == 0 {
		return nil, errors.New("a Marathon cluster needs at least one url")
	}
	var all []*url.URL
	for _, s := range c.URLs {
		u, err := url.Parse(s)
		switch {
		case err != nil:
			// The parser's error repeats the URL, which may hold a password.
			return nil, errors.New("a Marathon url does not parse; write it like http://10.0.0.1:8080")
		case u.User != nil:
			return nil, fmt.Errorf("the Marathon url of %s holds credentials; set username and password_file instead", u.Host)
		case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			return nil, fmt.Errorf("the Marathon url %q must be like http://10.0.0.1:8080", watch.Printable(s))
		case u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("the Marathon url of %s must end after the path", u.Host)
		}
		u.Path = strings.TrimRight(u.Path, "/")
		u.RawPath = ""
		all = append(all, u)
	}
	return all, nil
}

// hostPort is the URL's, with the scheme's port if it names none.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(strings.ToLower(u.Hostname()), port)
}

// name of the source.
func (c Config) name(members []*url.URL) string {
	if c.Name != "" {
		return c.Name
	}
	return hostPort(members[0])
}

func (c Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

func (c Config) transport() (*http.Transport, error) {
	dial := c.dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}).DialContext
	}
	t := &http.Transport{
		DialContext:         dial,
		TLSHandshakeTimeout: 3 * time.Second,
		MaxIdleConnsPerHost: 8,
		IdleConnTimeout:     90 * time.Second,
	}
	if c.CAFile == "" {
		return t, nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("reading the CA certificates for Marathon: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", c.CAFile)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	return t, nil
}
