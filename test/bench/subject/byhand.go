package subject

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mi-lb/mi-lb/test/bench/program"
	"github.com/mi-lb/mi-lb/test/edge"
)

// Site is a service with the addresses of its instances.
type Site struct {
	Name    string
	Servers []string
}

const handDefaults = `global
    nbthread %d
defaults
    mode http
    timeout connect 1s
    timeout client 1m
    timeout server 1m
    timeout http-request 10s
    timeout http-keep-alive 30s
`

// StartByHand runs a HAProxy that an engineer would have configured for the sites: by
// host through a map, with the headers that services rely on most. It does less than
// mi-lb's: what clients claim in Forwarded and Proxy reaches the services, they are not
// told host and port, a request to a server that dies meanwhile is not sent to another,
// and there are no paths and wildcards. It returns its address and process id.
func StartByHand(p *program.Program, b Binaries, sites []Site) (address string, pid int) {
	return startByHand(p, b, sites, "", `    http-request del-header X-Forwarded-For
    http-request set-header X-Forwarded-Proto http
    option forwardfor
`, "check inter 30s")
}

// StartByHandAlike runs the same for whoever wants of it what mi-lb's HAProxy does to
// each request, and still finds the backend by nothing but the host.
func StartByHandAlike(p *program.Program, b Binaries, sites []Site) (address string, pid int) {
	return startByHand(p, b, sites, "    retry-on conn-failure empty-response\n", `    http-request del-header X-Forwarded-For
    http-request del-header Forwarded
    http-request del-header Proxy
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Port %[dst_port]
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    http-request disable-l7-retry unless { method GET HEAD OPTIONS }
    option forwardfor
`, "check inter 30s observe layer4 error-limit 2 on-error mark-down")
}

func startByHand(p *program.Program, b Binaries, sites []Site, defaults, rules, check string) (address string, pid int) {
	dir := p.TempDir()
	address = fmt.Sprintf("127.0.0.1:%d", edge.FreePort(p))
	var text, hosts strings.Builder
	fmt.Fprintf(&text, handDefaults+`    retries 3
    option redispatch 1
%sfrontend http
    bind %s
%s    use_backend %%[req.hdr(host),host_only,lower,map(%s/hosts.map)]
`, Threads, defaults, address, rules, dir)
	for _, s := range sites {
		fmt.Fprintf(&hosts, "%s %s\n", Host(s.Name), s.Name)
		fmt.Fprintf(&text, "backend %s\n    balance roundrobin\n%s", s.Name, serverLines(s, check))
	}
	p.Check(os.WriteFile(filepath.Join(dir, "hosts.map"), []byte(hosts.String()), 0o600))
	return address, startHAProxy(p, b, dir, text.String())
}

// StartLeast runs a HAProxy that does nothing but pass on to the instances of one
// site: what no configuration by host can be faster than. It returns its address and process
// id.
func StartLeast(p *program.Program, b Binaries, site Site) (address string, pid int) {
	address = fmt.Sprintf("127.0.0.1:%d", edge.FreePort(p))
	return address, startHAProxy(p, b, p.TempDir(), fmt.Sprintf(handDefaults+"frontend http\n    bind %s\n    default_backend %s\nbackend %[3]s\n    balance roundrobin\n%s",
		Threads, address, site.Name, serverLines(site, "check inter 30s")))
}

func serverLines(s Site, check string) string {
	var text strings.Builder
	for i, address := range s.Servers {
		fmt.Fprintf(&text, "    server s%d %s %s\n", i, address, check)
	}
	return text.String()
}

// StartAnswering runs servers at the addresses that answer at once, whatever they are
// asked: a HAProxy with one thread, since nothing that is as easy to have takes less.
func StartAnswering(p *program.Program, b Binaries, addresses []string) {
	var binds strings.Builder
	for _, address := range addresses {
		fmt.Fprintf(&binds, "    bind %s\n", address)
	}
	startHAProxy(p, b, p.TempDir(), "global\n    nbthread 1\ndefaults\n    mode http\n    timeout client 5m\n    timeout http-keep-alive 5m\nfrontend http\n"+
		binds.String()+"    http-request return status 200 content-type text/plain string \"Here is what you have asked for, in so many bytes.\\n\"\n")
}

func startHAProxy(p *program.Program, b Binaries, dir, configuration string) (pid int) {
	file := filepath.Join(dir, "haproxy.cfg")
	p.Check(os.WriteFile(file, []byte(configuration), 0o600))
	return startChild(p, filepath.Join(dir, "log"), b.HAProxy, "-db", "-f", file).PID()
}
