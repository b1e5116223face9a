package render

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
	"github.com/mi-lb/mi-lb/lb/routing"
)

// InputError is about one service's part of a table: without it the rest renders.
type InputError struct {
	Service string
	Backend string
	Err     error
}

func (e *InputError) Error() string {
	return fmt.Sprintf("render backend %q of service %q: %v", e.Backend, e.Service, e.Err)
}

func (e *InputError) Unwrap() error { return e.Err }

// The types below are what templates see. Each text in them has passed an encoder.

type settingsView struct {
	Domain             string
	Socket             string
	Decrypt, Ports     string
	Handover           string
	HTTP, HTTPS, AppID []string
	PortRange          []string
	Certificates       string
	User, Group        string
	Generation         string
	MaxConn, Threads   int
	MostDescriptors    int
	BufferSize         int
	HTTPReuse          string
	AbortOnClose       bool
	Retries            int
	Timeouts           timeoutsView
	HardStopAfter      string
	MaxReloads         int
	Log, LogFormat     string
	LogErrors          bool
	TrustedProxies     []string
	StickyKey          string
}

type timeoutsView struct {
	Connect, Client, Server, Tunnel, Request, KeepAlive, Queue, Fin string
}

type backendView struct {
	Name    string
	ID      string
	Service string
	HTTP    bool
	Balance string
	// Hash says that the balance is by a hash of something.
	Hash      bool
	Sticky    bool
	Strip     *stripView
	CheckPath string
	CheckHost string
	// CheckByMap says that spare-checks.map has the two.
	CheckByMap bool
	// CheckTimeout is "" for the server's interval.
	CheckTimeout string
	Timeouts     timeoutsView
	Servers      []serverView
}

type stripView struct {
	Path   string
	Length int
}

type serverView struct {
	Name     string
	Address  string
	Weight   int
	Backup   bool
	MaxConn  int
	Check    *checkView
	Disabled bool
}

type checkView struct {
	Port                                 int
	TLS                                  bool
	Interval, FastInterval, DownInterval string
	Rise, Fall, ErrorLimit               int
}

type portView struct {
	Name    string
	Number  int
	Address string
	HTTP    bool
	Backend string
	Via     string
}

// Row is a row of a map.
type Row struct{ Key, Value string }

// encoder collects the first error of many encodings.
type encoder struct{ err error }

func (e *encoder) text(text string, err error) string {
	if err != nil && e.err == nil {
		e.err = err
	}
	return text
}

func (e *encoder) duration(d time.Duration) string { return e.text(encode.Duration(d)) }

// optional is "" for 0.
func (e *encoder) optional(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return e.duration(d)
}

func (e *encoder) number(n, least, most int, what string) int {
	if (n < least || n > most) && e.err == nil {
		e.err = fmt.Errorf("%s %d is not from %d to %d", what, n, least, most)
	}
	return n
}

// word is "" for "".
func (e *encoder) word(text string) string {
	if text == "" {
		return ""
	}
	return e.text(encode.Quote(text))
}

func newSettingsView(s Settings) (*settingsView, error) {
	var e encoder
	v := &settingsView{
		Domain:       e.comment(s.Domain),
		Socket:       e.word(s.Socket),
		Decrypt:      s.ownSocket("decrypt"),
		Ports:        s.ownSocket("ports"),
		Handover:     s.ownSocket("next"),
		Certificates: e.word(s.Certificates),
		User:         e.word(s.User),
		Group:        e.word(s.Group),
		Generation:   e.word(s.Generation),
		MaxConn:      s.connections(),
		Threads:      s.Threads,
		Retries:      s.Retries,
		Timeouts: timeoutsView{
			Connect:   e.duration(s.Timeouts.Connect),
			Client:    e.duration(s.Timeouts.Client),
			Server:    e.duration(s.Timeouts.Server),
			Tunnel:    e.duration(s.Timeouts.Tunnel),
			Request:   e.duration(s.Timeouts.Request),
			KeepAlive: e.duration(s.Timeouts.KeepAlive),
			Queue:     e.duration(s.Timeouts.Queue),
			Fin:       e.duration(s.Timeouts.Fin),
		},
		MostDescriptors: MostDescriptors,
		BufferSize:      s.BufferSize,
		HTTPReuse:       s.HTTPReuse,
		AbortOnClose:    s.AbortOnClose,
		LogErrors:       s.LogErrors,
		HardStopAfter:   e.duration(s.HardStopAfter),
		MaxReloads:      s.MaxReloads,
		StickyKey:       e.word(s.StickyKey),
	}
	if s.LogFormat != "" {
		// It is in HAProxy's language of formats, so only the quoting is ours.
		v.LogFormat = e.text(encode.Quote(s.LogFormat))
	}
	// The log target is several words, each of which stays one.
	for word := range strings.FieldsSeq(s.Log) {
		v.Log += " " + e.word(word)
	}
	v.Log = strings.TrimPrefix(v.Log, " ")
	for _, p := range s.TrustedProxies {
		if !p.IsValid() {
			e.text("", fmt.Errorf("trusted proxy %q is no network", p))
			continue
		}
		v.TrustedProxies = append(v.TrustedProxies, p.Masked().String())
	}
	for _, l := range []struct {
		from []string
		to   *[]string
	}{{s.HTTP, &v.HTTP}, {s.HTTPS, &v.HTTPS}, {s.AppID, &v.AppID}} {
		for _, address := range l.from {
			*l.to = append(*l.to, e.text(bind(address)))
		}
	}
	return v, e.err
}

// comment is text that stands in a comment.
func (e *encoder) comment(text string) string {
	if _, err := encode.Quote(text); err != nil {
		e.text("", err)
	}
	return text
}

func newServerView(s Settings, b *routing.Backend, server routing.Server) (serverView, error) {
	var e encoder
	v := serverView{
		Name:     encode.Server(server.Name, server.Backup),
		Address:  e.text(encode.Address(server.Address)),
		Weight:   e.number(server.Weight, 0, 256, "weight"),
		Backup:   server.Backup,
		MaxConn:  e.number(server.MaxConn, 0, 1<<30, "maxconn"),
		Disabled: server.State == routing.Maint,
	}
	if server.State == routing.Drain {
		v.Weight = 0
	}
	if !b.Check.Disabled {
		v.Check = &checkView{
			Port:         e.number(b.Check.Port, 0, 65535, "check port"),
			TLS:          b.Check.TLS,
			Interval:     e.duration(s.Check.Interval),
			FastInterval: e.duration(s.Check.FastInterval),
			DownInterval: e.duration(s.Check.DownInterval),
			Rise:         s.Check.Rise,
			Fall:         s.Check.Fall,
			ErrorLimit:   s.Check.ErrorLimit,
		}
		if b.Check.Interval > 0 {
			v.Check.Interval = e.duration(b.Check.Interval)
			v.Check.FastInterval = e.duration(min(b.Check.Interval, s.Check.FastInterval))
			v.Check.DownInterval = e.duration(min(b.Check.Interval, s.Check.DownInterval))
		}
		if b.Check.Fall > 0 {
			v.Check.Fall = e.number(b.Check.Fall, 1, 1000, "check fall")
		}
	}
	if e.err != nil {
		return serverView{}, &InputError{Service: b.Service, Backend: b.ID, Err: fmt.Errorf("server %q: %w", server.Name, e.err)}
	}
	return v, nil
}

func newBackendView(s Settings, b *routing.Backend) (*backendView, error) {
	var e encoder
	v := &backendView{
		Name:    encode.Name(b.ID),
		ID:      b.ID,
		Service: b.Service,
		HTTP:    b.Protocol == routing.HTTP,
		Sticky:  b.Sticky,
		Timeouts: timeoutsView{
			Connect: e.optional(b.Timeouts.Connect),
			Server:  e.optional(b.Timeouts.Server),
			Tunnel:  e.optional(b.Timeouts.Tunnel),
		},
		Servers: make([]serverView, len(b.Servers)),
	}
	v.Balance, v.Hash = e.balance(b)
	if b.StripPath != "" && b.StripPath != "/" && v.HTTP {
		path := e.text(encode.Path(strings.TrimSuffix(b.StripPath, "/")))
		v.Strip = &stripView{Path: path, Length: len(path)}
	}
	if b.Check.Path != "" && !b.Check.Disabled {
		v.CheckPath = e.text(encode.Path(b.Check.Path))
		v.CheckHost = checkHost(b.Service, s.Domain)
	}
	if !b.Check.Disabled {
		v.CheckTimeout = e.optional(b.Check.Timeout)
	}
	if b.Protocol != routing.HTTP && b.Protocol != routing.TCP {
		e.text("", fmt.Errorf("protocol %q is neither http nor tcp", b.Protocol))
	}
	if e.err != nil {
		return nil, &InputError{Service: b.Service, Backend: b.ID, Err: e.err}
	}
	seen := make(map[string]bool, len(b.Servers))
	for i, server := range b.Servers {
		var err error
		if v.Servers[i], err = newServerView(s, b, server); err != nil {
			return nil, err
		}
		if seen[v.Servers[i].Name] {
			return nil, &InputError{Service: b.Service, Backend: b.ID, Err: fmt.Errorf("server %q is there twice", server.Name)}
		}
		seen[v.Servers[i].Name] = true
	}
	return v, nil
}

// balance is the algorithm as HAProxy takes it, and whether it is by hash.
func (e *encoder) balance(b *routing.Backend) (string, bool) {
	name, rest, _ := strings.Cut(b.Balance, "(")
	name, argument, _ := strings.Cut(name, " ")
	if rest != "" {
		argument = strings.TrimSuffix(rest, ")")
	}
	for i := range len(argument) {
		if c := argument[i]; !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			e.text("", fmt.Errorf("balance %q is none of HAProxy's", b.Balance))
			return "", false
		}
	}
	plain := argument == ""
	switch {
	case plain && (name == "" || name == "roundrobin" || name == "static-rr"):
		// static-rr shares out the same, and takes no servers or weights at run time.
		return "roundrobin", false
	case plain && (name == "leastconn" || name == "first" || name == "random"):
		return name, false
	case name == "random":
		if n, err := strconv.Atoi(argument); err == nil && n > 0 {
			return fmt.Sprintf("random(%d)", n), false
		}
	case plain && name == "source":
		return name, true
	case plain && name == "uri" && b.Protocol == routing.HTTP:
		return name, true
	case !plain && name == "hdr" && b.Protocol == routing.HTTP:
		return "hdr(" + argument + ")", true
	case !plain && name == "url_param" && b.Protocol == routing.HTTP:
		return "url_param " + argument, true
	}
	e.text("", fmt.Errorf("balance %q is none of HAProxy's for %s", b.Balance, b.Protocol))
	return "", false
}

// checkHost is what a check calls its server: the service's name, as a request would.
func checkHost(service, domain string) string {
	if host, err := encode.Host(service + "." + domain); err == nil && !strings.HasPrefix(host, "*") {
		return host
	}
	return "localhost"
}

// address is where a service port binds.
func address(s Settings, port int) (string, error) {
	addr, err := netip.ParseAddr(s.ServicePortAddress)
	if err != nil || addr.Zone() != "" || port < 1 || port > 65535 {
		return "", fmt.Errorf("port %d at %q is no address", port, s.ServicePortAddress)
	}
	return netip.AddrPortFrom(addr, uint16(port)).String(), nil
}
