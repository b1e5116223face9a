package render

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"crypto/sha256"
	"encoding/hex"
)

// Settings are the operator's. The zero value of each field is its default, which
// [Settings.WithDefaults] puts in.
type Settings struct {
	// Dir is where [Write] puts the files; absolute.
	Dir string
	// Plain: the files are put into Dir itself rather than by [Write]; for files that
	// are only to be looked at.
	Plain bool
	// Socket is the runtime API's; default Dir/haproxy.sock.
	Socket string
	// HTTP, HTTPS and AppID are what these listeners bind: "0.0.0.0:80", ":80", "[::]:80".
	HTTP, HTTPS, AppID []string
	// ServicePortAddress is where service ports bind; default 0.0.0.0.
	ServicePortAddress string
	// ServicePortRange is bound as a whole; zero for none.
	ServicePortRange PortRange
	// Certificates is a PEM file or a directory of them for the HTTPS listener; ""
	// for passthrough only.
	Certificates string
	// Domain is under which services have their names.
	Domain string
	// User and Group are what HAProxy becomes; "" to stay.
	User, Group string
	// MaxConn bounds all connections; 0 for what Descriptors allow.
	MaxConn int
	// Descriptors is how many files a worker may have open; 0 if that is not known.
	Descriptors int
	// BufferSize is how many bytes of a request's or answer's headers HAProxy takes; 0
	// for its own 16384, which is also the least.
	BufferSize int
	// HTTPReuse is when a connection to a server serves another client's request:
	// "never", "safe" (the default), "aggressive" or "always".
	HTTPReuse string
	// AbortOnClose: nothing more is done for a client that has closed its connection.
	AbortOnClose bool
	// Threads is 0 for one per CPU.
	Threads  int
	Timeouts Timeouts
	// Retries are how often a failed connection is tried again; default 5.
	Retries int
	Check   Check
	// HardStopAfter bounds the life of an old worker, MaxReloads the reloads it
	// sees; defaults 30 minutes and 20.
	HardStopAfter time.Duration
	MaxReloads    int
	// Log is HAProxy's log target with its facility: "/dev/log local0",
	// "stdout format raw local0"; "" for no log.
	Log string
	// LogFormat of HTTP requests; "" for `option httplog`.
	LogFormat string
	// LogErrors: only what went wrong is logged.
	LogErrors bool
	// TrustedProxies are whose X-Forwarded-* and Forwarded headers are believed.
	TrustedProxies []netip.Prefix
	// StickyKey makes the values of stickiness cookies; edges that share clients
	// must share it. Default: derived from Domain.
	StickyKey string
	// Generation is the number of these files: the worker that has read them gives it
	// as its description. "" for none.
	Generation string
	// SpareBackends are about how many backends without servers are there for services
	// to come; see [Settings.Spares].
	SpareBackends int
	// BlockedPorts of the range belong to another program; sorted.
	BlockedPorts []int
}

// PortRange is a range of ports, both ends included; zero for none.
type PortRange struct{ First, Last int }

// Contains says whether the port is in the range.
func (r PortRange) Contains(port int) bool { return r.First != 0 && port >= r.First && port <= r.Last }

// ParsePortRange reads "10000-10100"; "" is none.
func ParsePortRange(s string) (PortRange, error) {
	if s == "" {
		return PortRange{}, nil
	}
	from, to, _ := strings.Cut(s, "-")
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil || first < 1 || last > 65535 || first > last {
		return PortRange{}, fmt.Errorf("%q is no range of ports; write it like \"10000-10100\"", s)
	}
	return PortRange{first, last}, nil
}

// Timeouts are HAProxy's, for backends that have none of their own.
type Timeouts struct {
	// Connect: default 1s. A lost SYN is sent again after that long anyway; another
	// server is the better use of the time. It also bounds the pause before a
	// backend's only server is tried again.
	Connect time.Duration
	// Client and Server: default 60s without a byte.
	Client, Server time.Duration
	// Tunnel: default 1h.
	Tunnel time.Duration
	// Request bounds the headers of a request; default 10s.
	Request time.Duration
	// KeepAlive is how long a client may pause between requests; default 30s.
	KeepAlive time.Duration
	// Queue bounds the wait for a server at its maxconn; default 30s.
	Queue time.Duration
	// Fin bounds the second half of a close; default 10s.
	Fin time.Duration
}

// Check is how HAProxy watches servers. Failing connections count too; see the
// template "server".
type Check struct {
	// Interval between checks of a healthy server; default 30s.
	Interval time.Duration
	// FastInterval while the verdict changes, DownInterval while it is down; default 1s.
	FastInterval, DownInterval time.Duration
	// Rise and Fall are the checks that take a server in (1) and out (3).
	Rise, Fall int
	// ErrorLimit are the failed connections in a row that take a server out; default
	// 2. At 1 a single lost SYN would take out a service's only instance; at 3 a lone
	// request to a killed instance is held up for seconds (the pause before a retry).
	ErrorLimit int
}

// WithDefaults is the settings with every default put in.
func (s Settings) WithDefaults() Settings {
	setDefault(&s.Socket, filepath.Join(s.Dir, "haproxy.sock"))
	setDefault(&s.ServicePortAddress, "0.0.0.0")
	setDefault(&s.Retries, 5)
	setDefault(&s.HardStopAfter, 30*time.Minute)
	setDefault(&s.MaxReloads, 20)
	setDefault(&s.HTTPReuse, "safe")
	setDefault(&s.StickyKey, hash("sticky "+s.Domain))
	setDefault(&s.Timeouts.Connect, time.Second)
	setDefault(&s.Timeouts.Client, time.Minute)
	setDefault(&s.Timeouts.Server, time.Minute)
	setDefault(&s.Timeouts.Tunnel, time.Hour)
	setDefault(&s.Timeouts.Request, 10*time.Second)
	setDefault(&s.Timeouts.KeepAlive, 30*time.Second)
	setDefault(&s.Timeouts.Queue, 30*time.Second)
	setDefault(&s.Timeouts.Fin, 10*time.Second)
	setDefault(&s.Check.Interval, 30*time.Second)
	setDefault(&s.Check.FastInterval, time.Second)
	setDefault(&s.Check.DownInterval, time.Second)
	setDefault(&s.Check.Rise, 1)
	setDefault(&s.Check.Fall, 3)
	setDefault(&s.Check.ErrorLimit, 2)
	return s
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ownSocket is the address of a socket by which HAProxy reaches itself. It has no place in
// the file system, where HAProxy's user might not reach it; everything in the network
// namespace sees its name. Two edges there can be of the same directory (containers in
// host networking), but not of the same listeners.
func (s Settings) ownSocket(what string) string {
	edge := fmt.Sprintf("%q %q %q %v", s.Dir, [][]string{s.HTTP, s.HTTPS, s.AppID}, s.ServicePortAddress, s.ServicePortRange)
	return "abns@mi-lb-" + what + "-" + hash(edge)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// Validate says what is wrong with the settings, all of it at once, each error
// beginning with the configuration's key.
func (s Settings) Validate() error {
	var wrong []error
	add := func(key string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", key, err))
		}
	}
	if !filepath.IsAbs(s.Dir) {
		add("state_dir", fmt.Errorf("%q is no absolute path", s.Dir))
	}
	for key, binds := range map[string][]string{"listen.http": s.HTTP, "listen.https": s.HTTPS, "listen.app_id": s.AppID} {
		for _, b := range binds {
			_, err := bind(b)
			add(key, err)
		}
	}
	if s.ServicePortAddress != "" {
		if _, err := netip.ParseAddr(s.ServicePortAddress); err != nil {
			add("listen.service_port_address", fmt.Errorf("%q is no IP address", s.ServicePortAddress))
		}
	}
	if r := s.ServicePortRange; r != (PortRange{}) && (r.First < 1 || r.Last > 65535 || r.First > r.Last) {
		add("listen.service_port_range", fmt.Errorf("%d-%d is no range of ports", r.First, r.Last))
	}
	for key, n := range map[string]int{
		"haproxy.maxconn": s.MaxConn, "haproxy.threads": s.Threads, "haproxy.retries": s.Retries,
		"haproxy.max_reloads": s.MaxReloads, "haproxy.spare_backends": s.SpareBackends,
		"haproxy.check.rise": s.Check.Rise, "haproxy.check.fall": s.Check.Fall, "haproxy.check.error_limit": s.Check.ErrorLimit,
	} {
		if n < 0 {
			add(key, fmt.Errorf("%d is negative", n))
		}
	}
	if s.BufferSize != 0 && (s.BufferSize < leastBuffer || s.BufferSize > mostBuffer) {
		add("haproxy.buffer_size", fmt.Errorf("%d is not from %d to %d", s.BufferSize, leastBuffer, mostBuffer))
	}
	if !slices.Contains(httpReuses, s.HTTPReuse) {
		add("haproxy.http_reuse", fmt.Errorf("%q is none of never, safe, aggressive and always", s.HTTPReuse))
	}
	_, err := newSettingsView(s.WithDefaults())
	add("haproxy", err)
	return errors.Join(wrong...)
}

// Buffers are of 16384 bytes at least: frames of HTTP/2 have as many.
const (
	leastBuffer = 16384
	mostBuffer  = 1 << 20
)

var httpReuses = []string{"", "never", "safe", "aggressive", "always"}

// MostDescriptors bounds the tables that HAProxy makes at its start: containers may have
// a limit of a thousand million.
const MostDescriptors = 1 << 20

// connections is the maxconn: the one set, else half of the descriptors, since each
// connection has two, less an eighth for checks and listeners. 0 if nobody knows.
func (s Settings) connections() int {
	if s.MaxConn > 0 || s.Descriptors <= 0 {
		return s.MaxConn
	}
	descriptors := min(s.Descriptors, MostDescriptors)
	return max((descriptors-descriptors/8)/2, 1)
}

// bind is the address as HAProxy's `bind` takes it.
func bind(s string) (string, error) {
	host, port, found := strings.Cut(s, ":")
	if i := strings.LastIndexByte(s, ':'); found {
		host, port = s[:i], s[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if !found || err != nil || n == 0 {
		return "", fmt.Errorf("%q is no address with a port, like \"0.0.0.0:80\"", s)
	}
	port = strconv.FormatUint(n, 10)
	if host == "" || host == "*" {
		return ":" + port, nil
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if err != nil || addr.Zone() != "" {
		return "", fmt.Errorf("%q does not begin with an IP address", s)
	}
	return netip.AddrPortFrom(addr, uint16(n)).String(), nil
}

// internal begins the names of frontends and backends that are mi-lb's own. No
// name of a table's backend begins so; see [encode.Name].
const internal = "mi-lb:"

// Internal says whether a frontend or backend of that name is none of a table's.
func Internal(name string) bool { return strings.HasPrefix(name, internal) }
