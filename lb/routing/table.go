package routing

import (
	"net/netip"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// Table is everything HAProxy should do. It is immutable.
type Table struct {
	// Revision is the snapshot's.
	Revision uint64 `json:"revision"`
	// At is when the newest input of the snapshot was received.
	At time.Time `json:"at"`
	// Ports are the service ports to open, sorted by port. HTTP, HTTPS and app-id
	// listeners are the operator's and not part of the table.
	Ports []Port `json:"ports"`
	// Routes, sorted by kind, host, then longest path first.
	Routes []Route `json:"routes"`
	// Backends, sorted by id.
	Backends []*Backend `json:"backends"`
	// Services are all that the snapshot has, published or not, sorted by name.
	Services []*Service `json:"services"`
	// Findings, sorted.
	Findings []watch.Finding `json:"findings"`
}

// Protocol is what a backend, and the listener in front of it, speaks.
type Protocol string

const (
	HTTP Protocol = "http"
	TCP  Protocol = "tcp"
)

// Port is a port on the edge that leads to one backend.
type Port struct {
	Number   int      `json:"number"`
	Protocol Protocol `json:"protocol"`
	Backend  string   `json:"backend"`
	Service  string   `json:"service"`
	// Via says what asked for it: "servicePort of /shop/web", "mi-lb.port".
	Via string `json:"via"`
}

// RouteKind says which part of a request a route looks at.
type RouteKind string

const (
	// ByHost: host and path of a request on an HTTP or HTTPS listener.
	ByHost RouteKind = "host"
	// ByAppID: header X-Marathon-App-Id on an app-id listener.
	ByAppID RouteKind = "app-id"
	// BySNI: server name in a TLS handshake on an HTTPS listener, passed through.
	BySNI RouteKind = "sni"
)

// Route is what a request must match, and where it then goes.
type Route struct {
	Kind RouteKind `json:"kind"`
	// Host is in lower case and without a port, or "*.example.com" for exactly
	// one more label. For ByAppID it is the app id, in lower case.
	Host string `json:"host"`
	// Path begins with "/". Only ByHost has one.
	Path string `json:"path,omitempty"`
	// PathPrefix says that Path is a prefix of characters (Marathon-lb's and
	// Fabio's path_beg: /api also matches /apix). Otherwise it is one of segments.
	PathPrefix bool   `json:"pathPrefix,omitempty"`
	Backend    string `json:"backend"`
	Service    string `json:"service"`
	// Via says why the route is there: "name", "alias python", "consul dns",
	// "mi-lb.host".
	Via string `json:"via"`
}

// Backend is a set of servers and how to use them. Two backends are the same if
// everything but Servers is equal.
type Backend struct {
	// ID is unique in the table and stable: "web", "web@dc2", "canary.web",
	// "web:tcp", "(api.v1)". It may hold any character; whoever writes it to a file encodes it.
	ID       string   `json:"id"`
	Service  string   `json:"service"`
	Protocol Protocol `json:"protocol"`
	// Balance is HAProxy's word: roundrobin, leastconn, source, random, first,
	// uri, hdr(<name>) … already validated against the list of allowed ones.
	Balance string `json:"balance"`
	// Sticky keeps a client on its server by cookie (HTTP) or address (TCP).
	Sticky bool `json:"sticky,omitempty"`
	// StripPath is removed from the beginning of a request's path; "" for none.
	StripPath string   `json:"stripPath,omitempty"`
	Check     Check    `json:"check"`
	Timeouts  Timeouts `json:"timeouts"`
	// Servers, sorted by name. Never nil-and-meaning-something: a backend
	// without servers answers 503.
	Servers []Server `json:"servers"`
}

// Check is how HAProxy itself watches the servers of a backend.
type Check struct {
	Disabled bool `json:"disabled,omitempty"`
	// Path makes it an HTTP check; "" is a TCP connect.
	Path string `json:"path,omitempty"`
	// TLS makes the check speak TLS, without verifying the certificate
	// (as Marathon's HTTPS checks do).
	TLS bool `json:"tls,omitempty"`
	// Interval and Timeout are 0 for the edge's default.
	Interval time.Duration `json:"interval,omitempty"`
	Timeout  time.Duration `json:"timeout,omitempty"`
	// Fall is how many failed checks take a server out; 0 for the edge's default.
	Fall int `json:"fall,omitempty"`
	// Port to check instead of the server's own; 0 for its own. It is per
	// server where instances differ.
	Port int `json:"port,omitempty"`
}

// Timeouts are 0 where the edge's defaults hold.
type Timeouts struct {
	Connect time.Duration `json:"connect,omitempty"`
	Server  time.Duration `json:"server,omitempty"`
	Tunnel  time.Duration `json:"tunnel,omitempty"`
}

// ServerState is what the platform wants of a server; HAProxy's own checks come
// on top.
type ServerState string

const (
	Ready ServerState = "ready"
	// Drain: established sessions go on, new ones only by stickiness.
	Drain ServerState = "drain"
	// Maint: no traffic at all.
	Maint ServerState = "maint"
)

// Server is one instance in a backend.
type Server struct {
	// Name identifies the instance (datacenter, node, id), not a slot. It may
	// hold any character; whoever writes it to a file encodes it.
	Name    string         `json:"name"`
	Address netip.AddrPort `json:"address"`
	// Weight is HAProxy's, 0 to 256.
	Weight int         `json:"weight"`
	State  ServerState `json:"state"`
	// Backup servers serve only when no other can.
	Backup bool `json:"backup,omitempty"`
	// MaxConn is 0 for no limit.
	MaxConn    int    `json:"maxConn,omitempty"`
	Datacenter string `json:"datacenter"`
	Node       string `json:"node"`
	// Health and Reason are why State is what it is.
	Health watch.Health `json:"health"`
	Reason string       `json:"reason,omitempty"`
	// Sources that know the instance: "consul/dc1", "marathon/10.0.0.1:8080".
	Sources []string `json:"sources"`
}

// Service is one row of the list of services: what a person asks "is it there,
// and where?" about.
type Service struct {
	Name    string   `json:"name"`
	Aliases []string `json:"aliases,omitempty"`
	// App is the Marathon app's id, empty where there is none.
	App       string `json:"app,omitempty"`
	Published bool   `json:"published"`
	// Reason says why it is not published.
	Reason    string   `json:"reason,omitempty"`
	Sources   []string `json:"sources"`
	Instances int      `json:"instances"`
	// Serving counts the instances that may have new traffic.
	Serving int `json:"serving"`
}
