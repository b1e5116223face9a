package registrator

import (
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"
)

// defaultInterval is between two runs of a check that does not say.
const defaultInterval = "10s"

// neverExpires is the TTL of the check that shows a container's HEALTHCHECK. Its
// status is written when it changes; if registrator is away, the last verdict is
// the best one there is, so it must not run out.
const neverExpires = "87600h"

func checkID(serviceID string) string       { return "service:" + serviceID }
func dockerCheckID(serviceID string) string { return "docker:" + serviceID }

// parseCheck is the check that the metadata asks for, nil where it asks for none
// or for one that cannot be had.
func parseCheck(p Policy, c *Container, e endpoint, m metadata, serviceID string) (*api.AgentServiceCheck, []problem) {
	r := checkReader{metadata: m}
	check := &api.AgentServiceCheck{CheckID: checkID(serviceID)}
	at := net.JoinHostPort(e.address, strconv.Itoa(e.port))
	switch kind := r.first("check_http", "check_https", "check_cmd", "check_script", "check_ttl", "check_tcp", "check_grpc"); kind {
	case "":
		return nil, r.problems
	case "check_http", "check_https":
		target, ok := httpTarget(strings.TrimPrefix(kind, "check_"), at, m.values[kind])
		if !ok {
			r.refuse(kind, "is not a path", "the service has no check; give a path like /health")
			return nil, r.problems
		}
		check.HTTP = target
		check.Method = r.method("check_http_method", "check_https_method")
		check.TLSSkipVerify = kind == "check_https" && m.values["check_tls_skip_verify"] != ""
		check.Timeout = r.duration("check_timeout", "")
	case "check_cmd", "check_script":
		if !p.ScriptChecks {
			r.refuse(kind, "would run a command on this host", "the service has no check; -script-checks allows them")
			return nil, r.problems
		}
		if kind == "check_cmd" {
			check.Args = []string{"check-cmd", c.ShortID(), strconv.Itoa(e.exposed), m.values[kind]}
			break
		}
		line := strings.NewReplacer("$SERVICE_IP", e.address, "$SERVICE_PORT", strconv.Itoa(e.port)).Replace(m.values[kind])
		check.Args = []string{"/bin/sh", "-c", line}
	case "check_ttl":
		if check.TTL = r.duration(kind, ""); check.TTL == "" {
			return nil, r.problems
		}
	case "check_tcp":
		check.TCP = at
		check.Timeout = r.duration("check_timeout", "")
	case "check_grpc":
		check.GRPC = at
		check.Timeout = r.duration("check_timeout", "")
		check.GRPCUseTLS = m.values["check_grpc_use_tls"] != ""
		check.TLSSkipVerify = check.GRPCUseTLS && m.values["check_tls_skip_verify"] != ""
	}
	if check.TTL == "" {
		check.Interval = r.duration("check_interval", defaultInterval)
	}
	check.Status = r.status("check_initial_status")
	check.DeregisterCriticalServiceAfter = r.duration("check_deregister_after", "")
	return check, r.problems
}

// httpTarget is the URL of a path on the endpoint. A value that is not a path
// cannot change host or port.
func httpTarget(scheme, at, path string) (string, bool) {
	if !plain(path) || strings.ContainsAny(path, " ") || len(path) > maxMetaValue {
		return "", false
	}
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	u, err := url.Parse(scheme + "://" + at + path)
	if err != nil || u.Host != at || u.User != nil {
		return "", false
	}
	return scheme + "://" + at + path, true
}

// checkReader reads a check's values and notes those that cannot be used.
type checkReader struct {
	metadata
	problems []problem
}

func (r *checkReader) first(keys ...string) string {
	for _, key := range keys {
		if r.values[key] != "" {
			return key
		}
	}
	return ""
}

func (r *checkReader) refuse(key, what, instead string) {
	r.problems = append(r.problems, problem{"invalid-check", r.origin[key], quote(r.values[key]) + " " + what, instead})
}

func (r *checkReader) duration(key, otherwise string) string {
	text := r.values[key]
	if text == "" {
		return otherwise
	}
	if d, err := time.ParseDuration(text); err != nil || d <= 0 {
		instead := "it is left out; write it like 15s"
		if otherwise != "" {
			instead = otherwise + " is used; write it like 15s"
		}
		r.refuse(key, "is not a duration", instead)
		return otherwise
	}
	return text
}

var methodPattern = regexp.MustCompile(`^[A-Z]{1,16}$`)

func (r *checkReader) method(keys ...string) string {
	key := r.first(keys...)
	if key == "" {
		return ""
	}
	if method := strings.ToUpper(r.values[key]); methodPattern.MatchString(method) {
		return method
	}
	r.refuse(key, "is not an HTTP method", "GET is used")
	return ""
}

func (r *checkReader) status(key string) string {
	switch status := r.values[key]; status {
	case "", api.HealthPassing, api.HealthWarning, api.HealthCritical:
		return status
	}
	r.refuse(key, "is not a check's status", "critical is used; it can be passing, warning or critical")
	return ""
}
