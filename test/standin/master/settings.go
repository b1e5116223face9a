// Package master is what mesos-master does here: it elects a leader, recovers the
// registry by the rules of the replicated log, registers agents and frameworks, and
// answers the endpoints that operators ask.
package master

//lint:file-ignore ST1005 these are the words of Mesos.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mi-lb/mi-lb/test/standin/ensemble"
	"github.com/mi-lb/mi-lb/test/standin/flags"
)

// Version is what it says that it is.
const Version = "1.11.0"

type settings struct {
	zk                    ensemble.URL
	quorum                int
	ip, hostname, cluster string
	port                  int
	workDir               string
	credentials           map[string]string
	readonly, readwrite   bool
	agentsLogin           bool
	frameworksLogin       bool
	acls                  acls
	sessionTimeout        time.Duration
	agentTimeout          time.Duration
	fetchTimeout          time.Duration
	autoInitialize        bool
}

// acls are those of Mesos's that are looked at.
type acls struct {
	Permissive         *bool `json:"permissive"`
	RegisterFrameworks []acl `json:"register_frameworks"`
	RegisterAgents     []acl `json:"register_agents"`
}

type acl struct {
	Principals entity `json:"principals"`
	Roles      entity `json:"roles"`
	Agents     entity `json:"agents"`
}

type entity struct {
	Type   string   `json:"type"`
	Values []string `json:"values"`
}

// allows goes by the first entry that is about the principal.
func (a acls) allows(list []acl, principal string) bool {
	for _, e := range list {
		if e.Principals.Type == "ANY" || slices.Contains(e.Principals.Values, principal) {
			return e.Roles.Type != "NONE" && e.Agents.Type != "NONE"
		}
	}
	return a.Permissive == nil || *a.Permissive
}

// read is what Mesos makes of its flags, and why it would not start with them.
func read(v flags.Values) (settings, error) {
	s := settings{
		quorum: v.Number("quorum", 0), cluster: v.Text("cluster", ""), workDir: v.Text("work_dir", ""),
		ip: v.Text("ip", ""), port: v.Number("port", 5050), readonly: v.Bool("authenticate_http_readonly", false),
		readwrite: v.Bool("authenticate_http_readwrite", false), agentsLogin: v.Bool("authenticate_agents", false),
		frameworksLogin: v.Bool("authenticate_frameworks", false), sessionTimeout: v.Duration("zk_session_timeout", 10*time.Second),
		fetchTimeout: v.Duration("registry_fetch_timeout", time.Minute), autoInitialize: v.Bool("log_auto_initialize", true),
	}
	ping, pings := v.Duration("agent_ping_timeout", 15*time.Second), v.Number("max_agent_ping_timeouts", 5)
	s.agentTimeout = ping * time.Duration(pings)
	if s.ip == "" {
		return s, errors.New("the stand-in needs --ip, as a machine with several addresses does")
	}
	s.hostname = v.Text("hostname", s.ip)
	switch {
	case v.Has("ip_discovery_command") && v.Has("ip"):
		return s, errors.New("Only one of `--ip` or `--ip_discovery_command` should be specified")
	case s.workDir == "":
		return s, errors.New("--work_dir needed for non in-memory registry")
	case !v.Has("zk"):
		return s, errors.New("the stand-in always has --zk")
	case !v.Has("quorum"):
		return s, errors.New("Need to specify --quorum for replicated log based registry when using ZooKeeper")
	case s.quorum < 1:
		return s, errors.New("Expecting --quorum to be at least 1")
	case ping < time.Second || ping > 15*time.Minute:
		return s, fmt.Errorf("Invalid value '%s' for --agent_ping_timeout: Must be between 1secs and 15mins", v["agent_ping_timeout"])
	case pings < 1:
		return s, errors.New("Invalid value for --max_agent_ping_timeouts: Must be at least 1")
	case s.agentTimeout <= s.sessionTimeout:
		return s, errors.New("ping timeouts must add up to more than --zk_session_timeout, or agents are lost whenever ZooKeeper elects")
	case v.Duration("agent_reregister_timeout", 10*time.Minute) < 10*time.Minute:
		return s, fmt.Errorf("Invalid value '%s' for --agent_reregister_timeout: Must be at least 10mins", v["agent_reregister_timeout"])
	case v.Text("registry", "replicated_log") != "replicated_log":
		return s, fmt.Errorf("'%s' is not a supported option for registry persistence", v["registry"])
	}
	var err error
	if s.zk, err = ensemble.ParseMesos(v["zk"]); err != nil {
		return s, fmt.Errorf("Failed to create a master contender: %w", err)
	}
	if s.zk.Path == "/" {
		return s, errors.New("Failed to create a master contender: Expecting a (chroot) path for ZooKeeper ('/' is not supported)")
	}
	if v.Has("credentials") {
		if s.credentials, err = flags.ReadCredentials(v["credentials"]); err != nil {
			return s, err
		}
		if i, err := os.Stat(trimFile(v["credentials"])); err == nil && i.Mode().Perm()&0o007 != 0 {
			fmt.Fprintf(os.Stderr, "W permissions on credentials file '%s' are too open; it is recommended that your credentials file is NOT accessible by others\n", v["credentials"])
		}
	}
	wantsLogins := s.agentsLogin || s.frameworksLogin || s.readonly || s.readwrite || v.Bool("authenticate_http_frameworks", false)
	if wantsLogins && s.credentials == nil {
		return s, errors.New("Authentication requires a credentials file (see --credentials flag)")
	}
	if v.Bool("authenticate_http_frameworks", false) && !v.Has("http_framework_authenticators") {
		return s, errors.New("Missing `--http_framework_authenticators` for HTTP frameworks that must authenticate")
	}
	if name := v.Text("http_framework_authenticators", "basic"); name != "basic" {
		return s, fmt.Errorf("HTTP authenticator '%s' not found", name)
	}
	if name := v.Text("authenticators", "crammd5"); name != "crammd5" {
		return s, fmt.Errorf("Authenticator '%s' not found", name)
	}
	if v.Has("acls") {
		if err := json.Unmarshal([]byte(v["acls"]), &s.acls); err != nil {
			return s, fmt.Errorf("Failed to load ACLs: %w", err)
		}
	}
	return s, nil
}

func trimFile(path string) string {
	const prefix = "file://"
	if len(path) > len(prefix) && path[:len(prefix)] == prefix {
		return path[len(prefix):]
	}
	return path
}
