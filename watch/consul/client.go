package consul

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/mi-lb/mi-lb/watch"
)

// TLS files for an agent that is reached over https. All are PEM, and read once.
type TLS struct {
	// CAFile holds the authorities that may sign the agent's certificate; the
	// system's where it is empty.
	CAFile string
	// CertFile and KeyFile are shown to an agent that asks for a certificate.
	CertFile string
	KeyFile  string
	// ServerName is expected in the agent's certificate in place of its address.
	ServerName string
}

// transport reaches an agent.
type transport struct {
	address string // as configured, for messages
	api     *api.Client
	token   *tokenFile
	http    *http.Transport
	// counted says that every query takes a connection that counts against the
	// agent's http_max_conns_per_client: plain HTTP, a unix socket (all of whose
	// clients are one to the agent), or an https server without HTTP/2.
	counted atomic.Bool
}

func (t *transport) plain() bool { return t.counted.Load() }

func newTransport(address string, files TLS, token *tokenFile, idle int) (*transport, error) {
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("address of Consul: %w", err)
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	h := &http.Transport{
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		MaxIdleConnsPerHost: idle,
		// The agent is near, and compressing an answer costs more than making it.
		DisableCompression: true,
		IdleConnTimeout:    90 * time.Second,
	}
	config := api.Config{Address: u.Host, PathPrefix: strings.TrimSuffix(u.Path, "/"), Scheme: "http"}
	t := &transport{address: address, token: token, http: h}
	switch u.Scheme {
	case "http":
		t.counted.Store(true)
	case "https":
		config.Scheme = "https"
		h.ForceAttemptHTTP2 = true
		h.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second}
		if h.TLSClientConfig, err = tlsConfig(files); err != nil {
			return nil, err
		}
	case "unix":
		t.counted.Store(true)
		path := u.Path
		config.Address, config.PathPrefix = "localhost", ""
		h.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		}
	default:
		return nil, fmt.Errorf("address of Consul %q: the scheme is none of http, https, unix", address)
	}
	if config.Address == "" {
		return nil, fmt.Errorf("address of Consul %q: no host", address)
	}
	config.HttpClient = &http.Client{
		Transport: recorder{t},
		// A name with dots in it can make the agent redirect to another part of
		// its API.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if t.api, err = api.NewClient(&config); err != nil {
		return nil, fmt.Errorf("client for Consul: %w", err)
	}
	return t, nil
}

func tlsConfig(files TLS) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: files.ServerName}
	if files.CAFile != "" {
		pem, err := os.ReadFile(files.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read Consul CA file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read Consul CA file %s: no certificate in it", files.CAFile)
		}
	}
	if files.CertFile != "" || files.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read Consul client certificate: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// recorder hands the header of an answer to whoever asked in the context:
// api.QueryMeta is not filled beyond the first header that is missing, and with
// streaming some agents send no X-Consul-LastContact. It also hands over the text of an
// answer that is not to be decoded as a whole; the client then gets a null.
type recorder struct{ *transport }

type (
	headerKey struct{}
	bodyKey   struct{}
)

func (r recorder) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := r.http.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.URL.Scheme == "https" && resp.ProtoMajor < 2 {
		r.counted.Store(true)
	}
	if into, ok := req.Context().Value(headerKey{}).(*http.Header); ok {
		*into = resp.Header
	}
	if into, ok := req.Context().Value(bodyKey{}).(**bytes.Buffer); ok && resp.StatusCode == http.StatusOK {
		*into = buffers.Get().(*bytes.Buffer)
		(*into).Reset()
		_, err := (*into).ReadFrom(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return nil, err
		}
		resp.Body = io.NopCloser(strings.NewReader("null"))
	}
	return resp, nil
}

// meta is what an answer says about itself.
type meta struct {
	index     uint64
	filtered  bool
	noLeader  bool
	streaming bool
	reset     bool // the index is lower than that of the answer before
}

func (m meta) doubt() doubt {
	switch {
	case m.filtered:
		return filtered
	case m.noLeader:
		return leaderless
	default:
		return noDoubt
	}
}

func metaOf(h http.Header) meta {
	// An absent or unreadable index is 0, which makes the next query an ordinary one.
	index, _ := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	streaming := h.Get("X-Consul-Query-Backend") == api.QueryBackendStreaming
	return meta{
		index:     index,
		filtered:  h.Get("X-Consul-Results-Filtered-By-ACLs") == "true",
		noLeader:  !streaming && h.Get("X-Consul-KnownLeader") == "false",
		streaming: streaming,
	}
}

const (
	// answerTimeout is for answers that do not block, big ones included.
	answerTimeout = 20 * time.Second
	probeTimeout  = 4 * time.Second
)

// query runs one read of the datacenter's catalog. With an index it blocks until
// there is something newer, for at most wait and Consul's jitter.
func query[T any](ctx context.Context, t *transport, datacenter string, index uint64, wait time.Duration,
	read func(*api.QueryOptions) (T, error)) (T, meta, error) {
	timeout := answerTimeout
	if index > 0 {
		timeout += wait * 17 / 16
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var header http.Header
	q := (&api.QueryOptions{Datacenter: datacenter, AllowStale: true}).
		WithContext(context.WithValue(ctx, headerKey{}, &header))
	q.Token, _ = t.token.get()
	if index > 0 {
		q.WaitIndex, q.WaitTime = index, wait
	}
	value, err := read(q)
	return value, metaOf(header), err
}

// readText is for answers that are not to be decoded as a whole. Their text must not be
// used after the call: its buffer goes round.
func readText(q *api.QueryOptions, read func(*api.QueryOptions) error, use func(text []byte) error) error {
	// There is a buffer only once there is an answer.
	var body *bytes.Buffer
	err := read(q.WithContext(context.WithValue(q.Context(), bodyKey{}, &body)))
	if body == nil {
		return err
	}
	defer buffers.Put(body)
	if err != nil {
		return err
	}
	return use(body.Bytes())
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// refusal is an agent's 429.
func refusal(err error) bool {
	var status api.StatusError
	return errors.As(err, &status) && status.Code == http.StatusTooManyRequests
}

// broken says that the error is about contact, not about one answer: whatever
// else is waited for over the same way is in question too.
func broken(err error) bool {
	var status api.StatusError
	if errors.As(err, &status) {
		return status.Code == http.StatusForbidden || status.Code >= 500 && status.Code != http.StatusServiceUnavailable
	}
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF)
}

// explain is the error in the words of whoever has to do something about it.
func (t *transport) explain(err error, datacenter string) string {
	var status api.StatusError
	if !errors.As(err, &status) {
		// The cause is at its end.
		return fmt.Sprintf("no answer from the Consul agent at %s: %s", t.address, watch.PrintableUpTo(err.Error(), 500))
	}
	body := watch.Printable(status.Body)
	switch {
	case status.Code == http.StatusTooManyRequests:
		return fmt.Sprintf("the Consul agent at %s refuses more connections (429 %s): raise limits.http_max_conns_per_client "+
			"in its configuration, or reach it over https", t.address, body)
	case status.Code == http.StatusForbidden:
		from := "no token file is configured"
		if t.token.path != "" {
			from = "the token is that of " + t.token.path
		}
		return fmt.Sprintf("the Consul agent at %s denies access (403 %s): it takes service:read and node:read on everything; %s",
			t.address, body, from)
	case strings.Contains(status.Body, "No path to datacenter"):
		return fmt.Sprintf("Consul knows no datacenter %q: check the configured datacenters, and `consul members -wan`", datacenter)
	case strings.Contains(status.Body, "no server currently reachable"):
		return fmt.Sprintf("no Consul server of datacenter %q can be reached from the agent at %s", datacenter, t.address)
	case strings.Contains(status.Body, "No cluster leader"):
		return fmt.Sprintf("the Consul servers of datacenter %q have no leader", datacenter)
	default:
		return fmt.Sprintf("the Consul agent at %s answered %d %s", t.address, status.Code, body)
	}
}
