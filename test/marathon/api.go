package marathon

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
)

// request is one to the API, with the cluster's lock held where it is served.
type request struct {
	*http.Request
	body []byte
	// path is what follows the resource's name, without slashes at its ends.
	path string
}

func (r *request) flag(name string, otherwise bool) bool {
	switch strings.ToLower(r.URL.Query().Get(name)) {
	case "true":
		return true
	case "":
		return otherwise
	}
	return false
}

func (r *request) embeds(what ...string) bool {
	for _, embedded := range r.URL.Query()["embed"] {
		for _, wanted := range what {
			if embedded == wanted {
				return true
			}
		}
	}
	return false
}

func (r *request) client() string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// answer is what a request gets.
type answer struct {
	status int
	body   any // rendered as JSON
	header map[string]string
}

func ok(body any) (answer, error) { return answer{status: http.StatusOK, body: body}, nil }

// serveAPI answers as the leader.
func (c *Cluster) serveAPI(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/events" {
		if r.Method != http.MethodGet {
			htmlError(w, http.StatusMethodNotAllowed, "HTTP method "+r.Method+" is not supported by this URL")
			return
		}
		c.serveEvents(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client is gone
	}
	reply, err := c.route(&request{Request: r, body: body})
	if err != nil {
		var refusal *apiError
		if !errors.As(err, &refusal) {
			refusal = message(http.StatusInternalServerError, "%s", err)
		}
		reply = answer{status: refusal.status, body: refusal.body}
	}
	for key, value := range reply.header {
		w.Header().Set(key, value)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache, no-store, must-revalidate")
	w.Header().Set("Pragma", "no-cache")
	w.Header().Set("Expires", "0")
	w.WriteHeader(reply.status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(mustMarshal(reply.body)) // the client's loss
	}
}

// route finds the resource and serves the request under the lock.
func (c *Cluster) route(r *request) (answer, error) {
	c.mu.Lock()
	defer c.unlock()
	for _, resource := range []struct {
		name  string
		serve func(*request) (answer, error)
	}{
		{"/v2/apps", c.serveApps},
		{"/v2/tasks", c.serveTasks},
		{"/v2/groups", c.serveGroups},
		{"/v2/deployments", c.serveDeployments},
		{"/v2/queue", c.serveQueue},
		{"/v2/info", c.serveInfo},
		{"/v2/leader", c.serveLeader},
		{"/v2/pods", c.servePods},
		{"/metrics", c.serveMetrics},
	} {
		if r.URL.Path == resource.name || strings.HasPrefix(r.URL.Path, resource.name+"/") {
			r.path = strings.Trim(strings.TrimPrefix(r.URL.Path, resource.name), "/")
			return resource.serve(r)
		}
	}
	return answer{}, message(http.StatusNotFound, "URI not found: %s", r.URL.Path)
}

// notAllowed refuses a method that the resource does not know.
func notAllowed(r *request) (answer, error) {
	return answer{}, message(http.StatusMethodNotAllowed, "HTTP 405 Method Not Allowed")
}

// deployed is what a change gets that became a deployment.
func deployed(d *deployment) answer {
	return answer{
		status: http.StatusOK,
		body:   object("version", d.version, "deploymentId", d.id),
		header: map[string]string{"Marathon-Deployment-Id": d.id},
	}
}
