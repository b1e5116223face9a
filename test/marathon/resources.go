package marathon

import (
	"encoding/json"
	"maps"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

// serveGroups is /v2/groups and one group below.
func (c *Cluster) serveGroups(r *request) (answer, error) {
	id := canonicalID("", r.path)
	apps, groups := c.definitions(), maps.Clone(c.groups)
	version := c.newVersion()
	known := groupIDs(apps, groups)
	switch r.Method {
	case http.MethodGet:
		if strings.HasSuffix(r.path, "versions") {
			return ok([]string{c.rootVersion})
		}
		if !known[id] {
			return answer{}, unknownGroup(id)
		}
		return ok(groupTree(id, apps, groups, c.rootVersion))
	case http.MethodDelete:
		if !known[id] {
			return answer{}, unknownGroup(id)
		}
		removeGroup(id, apps, groups)
	case http.MethodPost, http.MethodPut, http.MethodPatch:
		var update groupUpdate
		if err := json.Unmarshal(r.body, &update); err != nil {
			return answer{}, invalidJSON(err)
		}
		if update.ID != nil && id == "/" {
			id = canonicalID("/", *update.ID)
		}
		if r.Method == http.MethodPost && id != "/" && known[id] {
			return answer{}, message(http.StatusConflict, "Group %s is already created. Use PUT to change this group.", id)
		}
		if _, isApp := apps[id]; isApp {
			return answer{}, message(http.StatusConflict, "An app with the path %s already exists.", id)
		}
		if err := c.applyGroup(id, update, apps, groups, version); err != nil {
			return answer{}, err
		}
	default:
		return notAllowed(r)
	}
	d, err := c.deploy(apps, version, nil, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	c.groups = groups
	reply := deployed(d)
	if r.Method == http.MethodPost {
		reply.status, reply.header["Location"] = http.StatusCreated, path.Clean(id)
	}
	return reply, nil
}

// serveDeployments is /v2/deployments and one deployment below.
func (c *Cluster) serveDeployments(r *request) (answer, error) {
	if r.path == "" {
		if r.Method != http.MethodGet {
			return notAllowed(r)
		}
		documents := []json.RawMessage{}
		for _, d := range c.deployments {
			documents = append(documents, c.deploymentDocument(d))
		}
		return ok(documents)
	}
	if r.Method != http.MethodDelete {
		return notAllowed(r)
	}
	for _, d := range c.deployments {
		if d.id != r.path {
			continue
		}
		if r.flag("force", false) {
			c.giveUp(d.id)
			return answer{status: http.StatusAccepted, body: object()}, nil
		}
		return c.rollBack(d)
	}
	return answer{}, message(http.StatusNotFound, "DeploymentPlan %s does not exist", r.path)
}

// rollBack deploys what a deployment's apps were before it.
func (c *Cluster) rollBack(d *deployment) (answer, error) {
	version := c.newVersion()
	apps := c.definitions()
	for _, id := range d.affected {
		delete(apps, id)
		if before := d.original[id]; before != nil {
			var now *Definition
			if a := c.apps[id]; a != nil {
				now = a.def
			}
			apps[id] = c.version(before.clone(), now, version)
		}
	}
	reverse, err := c.deploy(apps, version, nil, true)
	if err != nil {
		return answer{}, err
	}
	return deployed(reverse), nil
}

// serveQueue is /v2/queue: the apps that wait for tasks to be launched.
func (c *Cluster) serveQueue(r *request) (answer, error) {
	if id, isDelay := strings.CutSuffix(r.path, "/delay"); isDelay && r.Method == http.MethodDelete {
		a := c.apps[canonicalID("", id)]
		if a == nil || a.missing() == 0 {
			return answer{}, message(http.StatusNotFound, "Application %s not found in tasks queue.", canonicalID("", id))
		}
		a.failures, a.launchAfter = 0, time.Time{}
		c.touch(a.id)
		return answer{status: http.StatusNoContent, body: object()}, nil
	}
	if r.path != "" || r.Method != http.MethodGet {
		return notAllowed(r)
	}
	queue := []json.RawMessage{}
	for _, id := range sortedKeys(c.apps) {
		a := c.apps[id]
		if a.def == nil || a.missing() == 0 {
			continue
		}
		left := max(0, time.Until(a.launchAfter))
		pairs := []any{"count", a.missing()}
		if c.release.roles() {
			pairs = append(pairs, "role", a.def.Role)
		}
		pairs = append(pairs,
			"delay", object("timeLeftSeconds", int(left.Seconds()), "overdue", left == 0),
			"since", timestamp(a.queuedSince),
			"processedOffersSummary", object("processedOffersCount", 0, "unusedOffersCount", 0,
				"rejectSummaryLastOffers", []any{}, "rejectSummaryLaunchAttempt", []any{}),
			"app", json.RawMessage(a.def.document()))
		queue = append(queue, object(pairs...))
	}
	return ok(object("queue", queue))
}

// serveInfo is /v2/info.
func (c *Cluster) serveInfo(r *request) (answer, error) {
	if r.path != "" || r.Method != http.MethodGet {
		return notAllowed(r)
	}
	leader := ""
	if c.leader >= 0 {
		leader = c.members[c.leader].address()
	}
	features := []string{}
	if !c.options.DisableTaskKilling {
		features = append(features, "task_killing")
	}
	_, portText, _ := strings.Cut(leader, ":")
	httpPort, err := strconv.Atoi(portText)
	if err != nil {
		httpPort = 8080
	}
	host, _, _ := strings.Cut(leader, ":")
	return ok(object(
		"name", "marathon", "version", c.options.Version, "buildref", "unknown", "elected", c.leader >= 0, "leader", leader,
		"frameworkId", "96d7da70-b731-4cfb-96a7-0ee877af615d-0000",
		"marathon_config", object(
			"access_control_allow_origin", []string{"*"}, "checkpoint", true, "decline_offer_duration", 120000,
			"default_network_name", c.options.DefaultNetwork, "env_vars_prefix", nil, "executor", "//cmd",
			"failover_timeout", 604800, "features", features, "framework_name", "marathon", "ha", true,
			"hostname", host, "launch_token", 100, "launch_token_refresh_interval", 30000,
			"leader_proxy_connection_timeout_ms", 5000, "leader_proxy_read_timeout_ms", 10000,
			"local_port_max", c.options.LocalPortMax, "local_port_min", c.options.LocalPortMin,
			"master", "zk://localhost:2181/mesos", "max_instances_per_offer", 5, "mesos_bridge_name", "mesos-bridge",
			"mesos_heartbeat_failure_threshold", 5, "mesos_heartbeat_interval", 15000,
			"mesos_leader_ui_url", "http://localhost:5050/", "mesos_role", nil, "mesos_user", "root",
			"min_revive_offers_interval", 5000, "offer_matching_timeout", 3000, "on_elected_prepare_timeout", 180000,
			"reconciliation_initial_delay", 15000, "reconciliation_interval", 600000,
			"scale_apps_initial_delay", 15000, "scale_apps_interval", 300000, "store_cache", true,
			"task_launch_confirm_timeout", 300000, "task_launch_timeout", 300000,
			"task_lost_expunge_initial_delay", 300000, "task_lost_expunge_interval", 30000,
			"task_reservation_timeout", 20000, "webui_url", nil),
		"zookeeper_config", object(
			"zk", "zk://localhost:2181/marathon", "zk_compression", true, "zk_compression_threshold", 65536,
			"zk_connection_timeout", 10000, "zk_max_node_size", 1024000, "zk_max_versions", 50,
			"zk_session_timeout", 10000, "zk_timeout", 10000),
		"http_config", object("http_port", httpPort, "https_port", 8443)))
}

// serveLeader is /v2/leader.
func (c *Cluster) serveLeader(r *request) (answer, error) {
	if c.leader < 0 {
		return answer{}, message(http.StatusNotFound, "There is no leader")
	}
	switch r.Method {
	case http.MethodGet:
		return ok(object("leader", c.members[c.leader].address()))
	case http.MethodDelete:
		// After the answer, which the leader still gives.
		time.AfterFunc(10*time.Millisecond, func() { c.Elect(-1, c.options.ElectionGap) })
		return ok(object("message", "Leadership abdicated"))
	}
	return notAllowed(r)
}

// servePods says that there are none: the emulator runs no pods.
func (c *Cluster) servePods(r *request) (answer, error) {
	if r.Method != http.MethodGet {
		return notAllowed(r)
	}
	if r.path == "" || r.path == "::status" {
		return ok([]string{})
	}
	return answer{}, message(http.StatusNotFound, "Pod '%s' does not exist", canonicalID("", strings.TrimSuffix(r.path, "::status")))
}

// serveMetrics is the little of /metrics that clients look at.
func (c *Cluster) serveMetrics(r *request) (answer, error) {
	if r.Method != http.MethodGet {
		return notAllowed(r)
	}
	running, staged, apps := 0, 0, 0
	for _, a := range c.apps {
		if a.def != nil {
			apps++
		}
		for _, t := range a.tasks {
			switch t.state {
			case stateRunning:
				running++
			case stateStaging, stateStarting:
				staged++
			}
		}
	}
	gauge := func(value int) json.RawMessage { return object("value", value) }
	return ok(object("version", "4.0.0", "gauges", object(
		"marathon.apps.active.gauge", gauge(apps), "marathon.deployments.active.gauge", gauge(len(c.deployments)),
		"marathon.instances.running.gauge", gauge(running), "marathon.instances.staged.gauge", gauge(staged),
		"marathon.http.event-streams.active.gauge", gauge(c.hub.count())),
		"counters", object(), "histograms", object(), "meters", object(), "timers", object()))
}
