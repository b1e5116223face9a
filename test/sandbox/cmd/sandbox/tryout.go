package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/mi-lb/mi-lb/test/sandbox"
)

// tryOut is what to paste.
type tryOut struct {
	// deploy posts the app to dc1's Marathon.
	deploy string
	// byName and byPort ask the edges for it, in the order of the datacenters.
	byName, byPort []string
	// routes and explain ask the edges why.
	routes, explainName, explainPort []string
	places                           string
}

func newTryOut(box *sandbox.Sandbox, servicePort int) tryOut {
	binary := box.Options.Binary
	if wd, err := os.Getwd(); err == nil {
		if relative, err := filepath.Rel(wd, binary); err == nil && !strings.HasPrefix(relative, "..") {
			binary = relative
		}
	}
	host := "webserver." + box.Options.Domain
	first := box.Sites[0]
	t := tryOut{deploy: fmt.Sprintf(`curl -X POST -H "Content-Type: application/json" http://%s/v2/apps -d '{
  "id": "webserver", "cmd": "python3 -m http.server 8080", "cpus": 0.5, "mem": 64.0, "instances": 1,
  "container": {"type": "DOCKER", "docker": {"image": "python", "network": "BRIDGE",
    "portMappings": [{"containerPort": 8080, "hostPort": 0, "servicePort": %d, "protocol": "tcp"}]}}}'`, at(first, first.Datacenter.Marathon), servicePort)}
	var places strings.Builder
	for _, site := range box.Sites {
		t.byName = append(t.byName, fmt.Sprintf(`curl -H "Host: %s" http://%s/`, host, at(site, site.HTTP)))
		t.byPort = append(t.byPort, fmt.Sprintf("curl http://%s/", at(site, servicePort)))
		admin := site.Edge.Admin
		t.routes = append(t.routes, fmt.Sprintf("%s routes --admin %s", binary, admin))
		t.explainName = append(t.explainName, fmt.Sprintf("%s explain %s --admin %s", binary, host, admin))
		t.explainPort = append(t.explainPort, fmt.Sprintf("%s explain :%d --admin %s", binary, servicePort, admin))
		fmt.Fprintf(&places, "%-4s edge      http://%s/, service ports on %s\n", site.Name, at(site, site.HTTP), site.Edge.ServicePortAddress)
		fmt.Fprintf(&places, "     admin     http://%s/\n", localhost(admin))
		fmt.Fprintf(&places, "     Marathon  http://%s/v2/apps\n", at(site, site.Datacenter.Marathon))
		fmt.Fprintf(&places, "     Consul    http://%s/ui/\n", at(site, site.Datacenter.Consul))
		fmt.Fprintf(&places, "     files     %s, %s\n", site.Edge.Config, site.Edge.Log)
	}
	t.places = places.String()
	return t
}

func (t tryOut) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, "Run an app on dc1's Marathon, and reach it through dc1's edge, by name and by port:")
	fmt.Fprintf(&b, "\n%s\n%s\n%s\n", t.deploy, t.byName[0], t.byPort[0])
	fmt.Fprintln(&b, "\nThe same through dc2's edge:")
	for i := range t.byName[1:] {
		fmt.Fprintf(&b, "\n%s\n%s\n", t.byName[1+i], t.byPort[1+i])
	}
	fmt.Fprintln(&b, "\nWhat leads where, and why:")
	fmt.Fprintf(&b, "\n%s\n%s\n%s\n%s\n", t.routes[0], t.explainName[0], t.explainPort[0], strings.Replace(t.routes[0], " routes ", " status ", 1))
	for i := range t.explainName[1:] {
		fmt.Fprintf(&b, "%s\n", t.explainName[1+i])
	}
	fmt.Fprintf(&b, "\nWhere things are:\n\n%s", t.places)
	return b.String()
}
