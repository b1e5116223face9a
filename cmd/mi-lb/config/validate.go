package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/agext/levenshtein"
)

// nearest is the key that is at most three letters away, counting whole keys and
// their last words alike; "" if there is none.
func nearest(key string, keys []string) string {
	best, least := "", 4
	for _, k := range keys {
		d := levenshtein.Distance(key, k, nil)
		if last := k[strings.LastIndexByte(k, '.')+1:]; last != k && key == last {
			d = 1 // the right word without its section
		}
		if len(key) > 3 && strings.HasPrefix(k, key) {
			d = min(d, 1) // the beginning of the right word: "user" for "username"
		}
		if d < least {
			best, least = k, d
		}
	}
	return best
}

// validate finds values that are of the right type and make no sense.
func validate(c Config, where func(key string) string) []error {
	v := validator{where: where}
	v.oneOf("exposure", c.Exposure, "all", "tagged")
	v.oneOf("locality", c.Locality, "local-first", "global", "local-only")
	v.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	v.oneOf("log.format", c.Log.Format, "text", "json")
	v.domain("domain", c.Domain)
	v.domain("consul.domain", c.Consul.Domain)
	if c.StateDir == "" {
		v.fail("state_dir", "is empty; mi-lb needs a directory to write to")
	}
	if c.Consul.Address != "" {
		v.url("consul.address", c.Consul.Address, "http", "https", "unix")
	}
	if (c.Consul.CertFile == "") != (c.Consul.KeyFile == "") {
		v.fail("consul.cert_file", "and consul.key_file go together; only one of them is set")
	}
	v.positive("consul.long_polls", int64(c.Consul.LongPolls), true)
	v.marathon(c.Marathon)
	for _, network := range c.HAProxy.TrustedProxies {
		if _, err := netip.ParsePrefix(network); err != nil {
			v.fail("haproxy.trusted_proxies", "%q is no network; write it as \"10.0.0.0/8\"", network)
		}
	}
	v.listen(c)
	v.positive("haproxy.drain", int64(c.HAProxy.Drain), true)
	v.positive("haproxy.drift_every", int64(c.HAProxy.DriftEvery), true)
	v.positive("haproxy.reload_every", int64(c.HAProxy.ReloadEvery), true)
	v.positive("haproxy.hard_stop_after", int64(c.HAProxy.HardStopAfter), true)
	v.positive("haproxy.threads", int64(c.HAProxy.Threads), true)
	v.positive("haproxy.maxconn", int64(c.HAProxy.MaxConn), true)
	v.oneOf("haproxy.http_reuse", c.HAProxy.HTTPReuse, "never", "safe", "aggressive", "always")
	if n := c.HAProxy.BufferSize; n != 0 && (n < 16384 || n > 1<<20) {
		v.fail("haproxy.buffer_size", "%d is neither 0 nor from 16384 to 1048576", n)
	}
	t := c.HAProxy.Timeout
	for key, d := range map[string]int64{
		"connect": int64(t.Connect), "client": int64(t.Client), "server": int64(t.Server), "tunnel": int64(t.Tunnel),
		"http_request": int64(t.HTTPRequest), "http_keep_alive": int64(t.KeepAlive), "queue": int64(t.Queue), "fin": int64(t.Fin),
	} {
		v.positive("haproxy.timeout."+key, d, false)
	}
	check := c.HAProxy.Check
	for key, n := range map[string]int64{
		"max_reloads": int64(c.HAProxy.MaxReloads), "retries": int64(c.HAProxy.Retries),
		"check.interval": int64(check.Interval), "check.fast_interval": int64(check.FastInterval), "check.down_interval": int64(check.DownInterval),
		"check.rise": int64(check.Rise), "check.fall": int64(check.Fall), "check.error_limit": int64(check.ErrorLimit),
	} {
		v.positive("haproxy."+key, n, false)
	}
	if c.HAProxy.Path == "" {
		v.fail("haproxy.path", "is empty")
	}
	slices.SortStableFunc(v.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return v.errs
}

type validator struct {
	where func(key string) string
	errs  []error
}

func (v *validator) fail(key, format string, arguments ...any) {
	v.errs = append(v.errs, &Error{Where: v.where(key), Key: key, Message: fmt.Sprintf(format, arguments...)})
}

func (v *validator) oneOf(key, value string, words ...string) {
	if slices.Contains(words, value) {
		return
	}
	hint := ""
	if near := nearest(value, words); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.fail(key, "%q is none of %s%s", value, strings.Join(words, ", "), hint)
}

func (v *validator) positive(key string, n int64, zero bool) {
	if n < 0 || n == 0 && !zero {
		v.fail(key, "must be more than 0")
	}
}

func (v *validator) domain(key, value string) {
	if value == "" {
		return
	}
	for label := range strings.SplitSeq(value, ".") {
		ok := label != "" && len(label) <= 63
		for _, c := range label {
			ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_')
		}
		if !ok {
			v.fail(key, "%q is no domain name", value)
			return
		}
	}
}

func (v *validator) url(key, value string, schemes ...string) *url.URL {
	u, err := url.Parse(value)
	if err != nil || !slices.Contains(schemes, u.Scheme) || (u.Host == "" && u.Scheme != "unix") || (u.Scheme == "unix" && u.Path == "") {
		v.fail(key, "%q is no address that begins with %s://", value, strings.Join(schemes, "://, "))
		return nil
	}
	if u.User != nil {
		v.fail(key, "has a user or password in it; use the keys for them, which keep it out of logs")
		return nil
	}
	return u
}

func (v *validator) marathon(clusters []Marathon) {
	names := map[string]int{}
	for i, m := range clusters {
		if len(m.URL) == 0 {
			v.fail("marathon", "cluster %d has no url", i+1)
			continue
		}
		for _, u := range m.URL {
			v.url("marathon", u, "http", "https")
		}
		if (m.Username == "") != (m.PasswordFile == "") {
			v.fail("marathon", "cluster %d: username and password_file go together; only one of them is set", i+1)
		}
		name := m.ClusterName()
		if first, twice := names[name]; twice {
			v.fail("marathon", "clusters %d and %d are both called %q; give one another name", first, i+1, name)
		}
		names[name] = i + 1
	}
}

// ClusterName is what the cluster is called: its name, or the host:port of its
// first member.
func (m Marathon) ClusterName() string {
	if m.Name != "" {
		return m.Name
	}
	if len(m.URL) == 0 {
		return ""
	}
	u, err := url.Parse(m.URL[0])
	if err != nil {
		return m.URL[0]
	}
	return u.Host
}

// Listener is an address that the edge takes for itself, and the key that says so.
type Listener struct {
	Key     string
	Address netip.AddrPort
}

// Listeners are all addresses the configuration takes. What does not parse is left out.
func (c Config) Listeners() []Listener {
	var all []Listener
	for key, addresses := range map[string][]string{
		"listen.http": c.Listen.HTTP, "listen.https": c.Listen.HTTPS, "listen.app_id": c.Listen.AppID, "admin.listen": {c.Admin.Listen},
	} {
		for _, text := range addresses {
			if address, err := ParseAddress(text); err == nil {
				all = append(all, Listener{key, address})
			}
		}
	}
	slices.SortFunc(all, func(a, b Listener) int {
		if c := strings.Compare(a.Key, b.Key); c != 0 {
			return c
		}
		return a.Address.Compare(b.Address)
	})
	return all
}

// ParseAddress reads "10.0.0.1:80", "[::]:80", ":80" and "*:80".
func ParseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address; write it as \"0.0.0.0:80\"", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q has no port from 1 to 65535", s)
	}
	if host == "" || host == "*" {
		host = "0.0.0.0"
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q has a host name; only addresses can be listened on", s)
	}
	return netip.AddrPortFrom(address, uint16(n)), nil
}

// PortRange is a range of service ports; the zero one is none.
type PortRange struct{ First, Last int }

// ParsePortRange reads "10000-10100"; "" is the zero range.
func ParsePortRange(s string) (PortRange, error) {
	if s == "" {
		return PortRange{}, nil
	}
	from, to, ok := strings.Cut(s, "-")
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if !ok || err1 != nil || err2 != nil || first < 1 || last > 65535 || first > last {
		return PortRange{}, fmt.Errorf("%q is no range of ports; write it as \"10000-10100\"", s)
	}
	return PortRange{first, last}, nil
}

func (v *validator) listen(c Config) {
	for key, addresses := range map[string][]string{"listen.http": c.Listen.HTTP, "listen.https": c.Listen.HTTPS, "listen.app_id": c.Listen.AppID} {
		for _, address := range addresses {
			if _, err := ParseAddress(address); err != nil {
				v.fail(key, "%v", err)
			}
		}
	}
	if c.Admin.Listen != "" {
		if _, err := ParseAddress(c.Admin.Listen); err != nil {
			v.fail("admin.listen", "%v", err)
		}
	}
	if _, err := netip.ParseAddr(c.Listen.ServicePortAddress); err != nil {
		v.fail("listen.service_port_address", "%q is no IP address", c.Listen.ServicePortAddress)
	}
	ports, err := ParsePortRange(c.Listen.ServicePortRange)
	if err != nil {
		v.fail("listen.service_port_range", "%v", err)
	}
	if c.Listen.Certificates != "" && len(c.Listen.HTTPS) == 0 {
		v.fail("listen.certificates", "there is no listen.https to use them on")
	}
	listeners := c.Listeners()
	for i, a := range listeners {
		if port := int(a.Address.Port()); port >= ports.First && port <= ports.Last {
			v.fail(a.Key, "%s is inside of listen.service_port_range %s", a.Address, c.Listen.ServicePortRange)
		}
		for _, b := range listeners[:i] {
			same := a.Address.Port() == b.Address.Port() &&
				(a.Address.Addr() == b.Address.Addr() || a.Address.Addr().IsUnspecified() || b.Address.Addr().IsUnspecified())
			if same {
				v.fail(a.Key, "%s is taken by %s already (%s)", a.Address, b.Key, b.Address)
			}
		}
	}
}
