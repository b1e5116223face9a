package marathon

import (
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
)

// member is one Marathon of the cluster.
type member struct {
	cluster *Cluster
	index   int
	listen  string // with its port once it has listened

	mu     sync.Mutex
	server *http.Server // nil while down
}

func (m *member) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.server != nil {
		return nil
	}
	listener, err := net.Listen("tcp", m.listen)
	if err != nil {
		return fmt.Errorf("listen for Marathon's API: %w", err)
	}
	m.listen = listener.Addr().String()
	m.server = &http.Server{Handler: m}
	go m.server.Serve(listener) //nolint:errcheck // ends with stop
	return nil
}

func (m *member) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.server != nil {
		m.server.Close()
		m.server = nil
	}
}

func (m *member) up() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.server != nil
}

func (m *member) address() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listen
}

func (m *member) url() string { return "http://" + m.address() }

// ServeHTTP answers as this member: by itself if it leads, or through the leader.
func (m *member) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := m.cluster
	if strings.HasPrefix(r.URL.Path, "/_emulator/") {
		c.serveEmulator(w, r)
		return
	}
	const via = "X-Marathon-Via"
	proxied := r.Header.Get(via) != ""
	if !proxied {
		fault, found := c.faults.hit(m.index, r)
		if found {
			var answered bool
			if w, answered = fault.apply(w, r); answered {
				return
			}
			if finisher, ok := w.(interface{ finish() }); ok {
				defer finisher.finish()
			}
		}
	}
	if r.URL.Path == "/ping" {
		w.Header().Set("Content-Type", "text/plain;charset=utf-8")
		fmt.Fprint(w, "pong")
		return
	}
	if !c.authorised(r) {
		w.Header().Set("WWW-Authenticate", `basic realm="Mesosphere"`)
		htmlError(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	leader := c.awaitLeader(r.Context())
	switch {
	case leader < 0:
		htmlError(w, http.StatusBadGateway, "Could not determine the current leader")
	case leader == m.index:
		w.Header().Set("X-Marathon-Leader", m.url())
		c.serveAPI(w, r)
	case r.URL.Path == "/v2/events" && c.release.redirectsEvents():
		w.Header().Set("Location", c.members[leader].url()+r.URL.RequestURI())
		w.WriteHeader(http.StatusFound)
	case proxied && r.Header.Get(via) == "1.1 "+m.address():
		htmlError(w, http.StatusBadGateway, "Detected proxying loop.")
	default:
		m.forward(w, r, c.members[leader], via)
	}
}

// forward proxies a request to the leader.
func (m *member) forward(w http.ResponseWriter, r *http.Request, leader *member, via string) {
	target, err := url.Parse(leader.url())
	if err != nil {
		htmlError(w, http.StatusBadGateway, "Connection to leader refused.")
		return
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.SetXForwarded()
			p.Out.Header.Add(via, "1.1 "+m.address())
		},
		ModifyResponse: func(response *http.Response) error {
			response.Header.Add(via, "1.1 "+m.address())
			return nil
		},
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) {
			htmlError(w, http.StatusBadGateway, "Connection to leader refused.")
		},
		Transport: &http.Transport{DisableKeepAlives: true},
	}
	proxy.ServeHTTP(w, r)
}

func (c *Cluster) authorised(r *http.Request) bool {
	if c.options.Username == "" {
		return true
	}
	username, password, ok := r.BasicAuth()
	return ok && subtle.ConstantTimeCompare([]byte(username), []byte(c.options.Username)) == 1 &&
		subtle.ConstantTimeCompare([]byte(password), []byte(c.options.Password)) == 1
}

// htmlError answers as Marathon's web server does where the API has no say.
func htmlError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/html;charset=iso-8859-1")
	w.Header().Set("Cache-Control", "must-revalidate,no-cache,no-store")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html>\n<head>\n<title>Error %d %s</title>\n</head>\n<body><h2>HTTP ERROR %d</h2>\n<p>Reason:\n<pre>    %s</pre></p>\n</body>\n</html>\n",
		status, message, status, message)
}
