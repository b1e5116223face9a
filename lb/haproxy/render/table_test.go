package render

import (
	"net/netip"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/lb/routing"
	"github.com/mi-lb/mi-lb/watch"
)

func server(name, address string) routing.Server {
	return routing.Server{
		Name: name, Address: netip.MustParseAddrPort(address), Weight: 1, State: routing.Ready,
		Datacenter: "dc1", Node: "node-1", Health: watch.HealthPassing, Sources: []string{"consul/dc1"},
	}
}

func backup(s routing.Server) routing.Server {
	s.Backup, s.Datacenter = true, "dc2"
	return s
}

func backend(id string, servers ...routing.Server) *routing.Backend {
	return &routing.Backend{ID: id, Service: id, Protocol: routing.HTTP, Balance: "roundrobin", Servers: servers}
}

func tcp(b *routing.Backend) *routing.Backend {
	b.Protocol = routing.TCP
	return b
}

func byHost(host, path, backend string) routing.Route {
	return routing.Route{Kind: routing.ByHost, Host: host, Path: path, Backend: backend, Service: backend, Via: "mi-lb.host"}
}

// everything is a table with one of each.
func everything() *routing.Table {
	web := backend("web",
		server("dc1/node-1/web-1", "10.0.0.1:31001"),
		server("dc1/node-2/web-2", "10.0.0.2:31002"),
		backup(server("dc2/node-3/web-1", "[fd00::3]:31003")),
	)
	web.Servers[1].State = routing.Drain
	api := backend("api@dc2", server("a", "10.0.0.3:80"), server("b", "10.0.0.4:80"))
	api.Balance = "hdr(X-User)"
	api.StripPath = "/api"
	api.Servers[0].State = routing.Maint
	api.Servers[1].MaxConn = 50
	api.Timeouts = routing.Timeouts{Connect: 500 * time.Millisecond, Server: 5 * time.Minute, Tunnel: 24 * time.Hour}
	sticky := backend("sticky", server("s1", "10.0.0.5:80"))
	sticky.Sticky = true
	sticky.Check = routing.Check{Path: "/health", TLS: true, Port: 8443, Interval: 5 * time.Second, Timeout: 2 * time.Second, Fall: 2}
	unchecked := tcp(backend("db:tcp", server("d1", "10.0.0.6:5432")))
	unchecked.Balance, unchecked.Sticky, unchecked.Check.Disabled = "source", true, true
	tls := tcp(backend("tls", server("t1", "10.0.0.7:443")))
	tls.Balance = "leastconn"
	empty := backend("empty")
	t := &routing.Table{
		Backends: []*routing.Backend{api, unchecked, empty, sticky, tls, web},
		Ports: []routing.Port{
			{Number: 9000, Protocol: routing.HTTP, Backend: "web", Service: "web", Via: "servicePort of /web"},
			{Number: 5432, Protocol: routing.TCP, Backend: "db:tcp", Service: "db", Via: "mi-lb.port"},
			{Number: 10001, Protocol: routing.TCP, Backend: "tls", Service: "tls", Via: "mi-lb.port"},
			{Number: 10005, Protocol: routing.HTTP, Backend: "empty", Service: "empty", Via: "mi-lb.port"},
		},
		Routes: []routing.Route{
			byHost("web.mi-lb.example.com", "/", "web"),
			byHost("web.mi-lb.example.com", "/api", "api@dc2"),
			{Kind: routing.ByHost, Host: "web.mi-lb.example.com", Path: "/img", PathPrefix: true, Backend: "sticky", Service: "sticky"},
			byHost("*.example.org", "", "web"),
			{Kind: routing.ByAppID, Host: "/shop/web", Backend: "web", Service: "web"},
			{Kind: routing.BySNI, Host: "tls.example.com", Backend: "tls", Service: "tls"},
			{Kind: routing.BySNI, Host: "*.tls.example.com", Backend: "tls", Service: "tls"},
		},
	}
	slices.SortFunc(t.Ports, func(a, b routing.Port) int { return a.Number - b.Number })
	return t
}
