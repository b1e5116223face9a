package marathon

import (
	"bytes"
	"encoding/json"
	"net/http"
	"path"
	"slices"
	"strings"
)

// serveApps is /v2/apps and everything below.
func (c *Cluster) serveApps(r *request) (answer, error) {
	if r.path == "" {
		switch r.Method {
		case http.MethodGet, http.MethodHead:
			return c.listApps(r)
		case http.MethodPost:
			return c.createApp(r)
		case http.MethodPut, http.MethodPatch:
			return c.replaceApps(r)
		}
		return notAllowed(r)
	}
	segments := strings.Split(r.path, "/")
	for i := 1; i < len(segments); i++ {
		id, rest := "/"+strings.Join(segments[:i], "/"), segments[i+1:]
		switch {
		case segments[i] == "tasks" && len(rest) < 2:
			return c.serveAppTasks(r, id, strings.Join(rest, ""))
		case segments[i] == "restart" && len(rest) == 0 && r.Method == http.MethodPost:
			return c.restartApp(r, id)
		case segments[i] == "versions" && len(rest) < 2:
			return c.serveVersions(r, id, strings.Join(rest, ""))
		}
	}
	id := canonicalID("", r.path)
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if segments[len(segments)-1] == "*" {
			return c.listGroupApps(r, path.Dir(id))
		}
		a := c.apps[id]
		if a == nil || a.def == nil {
			return answer{}, unknownApp(id)
		}
		return ok(object("app", c.appDocument(a, embedded{tasks: true, failure: true, readiness: r.embeds("app.readiness")})))
	case http.MethodPut:
		return c.putApp(r, id, r.flag("partialUpdate", true))
	case http.MethodPatch:
		if a := c.apps[id]; a == nil || a.def == nil {
			return answer{}, unknownApp(id)
		}
		return c.putApp(r, id, true)
	case http.MethodDelete:
		return c.deleteApp(r, id)
	}
	return notAllowed(r)
}

// embedded says what an app's document has beside the definition.
type embedded struct{ tasks, failure, readiness bool }

// appDocument is an app's JSON with counts and deployments.
func (c *Cluster) appDocument(a *app, with embedded) json.RawMessage {
	var staged, running, healthy, unhealthy int
	tasks := []taskDocument{}
	for _, t := range a.tasks {
		if with.tasks {
			tasks = append(tasks, c.taskDocument(t, false))
		}
		switch t.state {
		case stateStaging, stateStarting:
			staged++
		case stateRunning:
			running++
		}
		if alive, known := t.healthy(); known && alive {
			healthy++
		} else if known {
			unhealthy++
		}
	}
	deployments := []map[string]string{}
	for _, id := range c.deploymentsOf(a.id) {
		deployments = append(deployments, map[string]string{"id": id})
	}
	extra := []any{
		"tasksStaged", staged, "tasksRunning", running, "tasksHealthy", healthy, "tasksUnhealthy", unhealthy,
		"deployments", deployments,
	}
	if with.readiness {
		extra = append(extra, "readinessCheckResults", c.readinessResults(a))
	}
	if with.tasks {
		extra = append(extra, "tasks", tasks)
	}
	if with.failure && a.lastFailure != nil {
		extra = append(extra, "lastTaskFailure", a.lastFailure)
	}
	return joinObjects(a.def.document(), object(extra...))
}

// joinObjects appends the fields of one rendered object to those of another.
func joinObjects(first, second []byte) json.RawMessage {
	return slices.Concat(bytes.TrimSuffix(first, []byte("}")), []byte(","), bytes.TrimPrefix(second, []byte("{")))
}

func (c *Cluster) listApps(r *request) (answer, error) {
	query := r.URL.Query()
	var selectors []selector
	if label := query.Get("label"); label != "" {
		var err error
		if selectors, err = parseSelectors(label); err != nil {
			return answer{}, err
		}
	}
	contains := func(text, part string) bool { return strings.Contains(strings.ToLower(text), strings.ToLower(part)) }
	with := embedded{
		tasks: r.embeds("apps.tasks", "app.tasks"), failure: r.embeds("apps.failures", "apps.lastTaskFailure", "app.lastTaskFailure"),
		readiness: r.embeds("apps.readiness", "app.readiness"),
	}
	apps := []json.RawMessage{}
	for _, id := range sortedKeys(c.apps) {
		a := c.apps[id]
		if a.def == nil ||
			slices.ContainsFunc(selectors, func(s selector) bool { return !s.matches(a.def.Labels) }) ||
			!contains(id, query.Get("id")) ||
			query.Get("cmd") != "" && (a.def.Cmd == nil || !contains(*a.def.Cmd, query.Get("cmd"))) {
			continue
		}
		apps = append(apps, c.appDocument(a, with))
	}
	return ok(object("apps", apps))
}

func (c *Cluster) listGroupApps(r *request, group string) (answer, error) {
	apps := []json.RawMessage{}
	for _, id := range sortedKeys(c.apps) {
		if a := c.apps[id]; a.def != nil && within(id, group) {
			apps = append(apps, c.appDocument(a, embedded{tasks: true, failure: true}))
		}
	}
	return ok(object("*", apps))
}

func (c *Cluster) publishPost(client, uri string, def *Definition) {
	c.publish("api_post_event", "clientIp", client, "uri", uri, "appDefinition", json.RawMessage(def.document()))
}

func (c *Cluster) createApp(r *request) (answer, error) {
	def, err := c.parseApp("", r.body)
	if err != nil {
		return answer{}, err
	}
	if a := c.apps[def.ID]; a != nil && a.def != nil {
		return answer{}, message(http.StatusConflict, "An app with id [%s] already exists.", def.ID)
	}
	d, err := c.deployApp(r, def, nil, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	return answer{
		status: http.StatusCreated,
		body:   c.appDocument(c.apps[def.ID], embedded{tasks: true}),
		header: map[string]string{"Location": def.ID, "Marathon-Deployment-Id": d.id},
	}, nil
}

// deployApp puts one definition in place of another, nil for none.
func (c *Cluster) deployApp(r *request, def, before *Definition, force bool) (*deployment, error) {
	apps := c.definitions()
	if err := c.admit(def, before, apps); err != nil {
		return nil, err
	}
	version := c.newVersion()
	def = c.version(def, before, version)
	apps[def.ID] = def
	c.publishPost(r.client(), r.URL.Path, def)
	return c.deploy(apps, version, nil, force)
}

func (c *Cluster) putApp(r *request, id string, partial bool) (answer, error) {
	a := c.apps[id]
	if a == nil || a.def == nil {
		fields, err := parseFields(r.body)
		if err != nil {
			return answer{}, err
		}
		fields["id"] = mustMarshal(id)
		def, err := c.define("", fields)
		if err != nil {
			return answer{}, err
		}
		d, err := c.deployApp(r, def, nil, r.flag("force", false))
		if err != nil {
			return answer{}, err
		}
		reply := deployed(d)
		reply.status, reply.header["Location"] = http.StatusCreated, id
		return reply, nil
	}
	def, err := c.updated(a, r.body, partial)
	if err != nil {
		return answer{}, err
	}
	d, err := c.deployApp(r, def, a.def, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	return deployed(d), nil
}

// updated is what an app becomes by a PUT; with a version, what it was then.
func (c *Cluster) updated(a *app, body []byte, partial bool) (*Definition, error) {
	fields, err := parseFields(body)
	if err != nil {
		return nil, err
	}
	var version string
	if raw, has := fields["version"]; has && json.Unmarshal(raw, &version) == nil && version != "" && len(fields) <= 2 {
		for _, old := range a.versions {
			if old.Version == version {
				return old.clone(), nil
			}
		}
		return nil, message(http.StatusNotFound, "App '%s' does not exist in version %s", a.id, version)
	}
	if partial {
		return c.updateApp(a.def, body)
	}
	fields["id"] = mustMarshal(a.id)
	return c.define("", fields)
}

func (c *Cluster) replaceApps(r *request) (answer, error) {
	var documents []json.RawMessage
	if err := json.Unmarshal(r.body, &documents); err != nil {
		return answer{}, invalidJSON(err)
	}
	apps := c.definitions()
	version := c.newVersion()
	for _, document := range documents {
		var named struct{ ID string }
		if err := json.Unmarshal(document, &named); err != nil {
			return answer{}, invalidJSON(err)
		}
		id := canonicalID("", named.ID)
		before := apps[id]
		var def *Definition
		var err error
		if before == nil {
			def, err = c.parseApp("", document)
		} else {
			def, err = c.updateApp(before, document)
		}
		if err == nil {
			err = c.admit(def, before, apps)
		}
		if err != nil {
			return answer{}, err
		}
		apps[id] = c.version(def, before, version)
		c.publishPost(r.client(), r.URL.Path, apps[id])
	}
	d, err := c.deploy(apps, version, nil, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	return deployed(d), nil
}

func (c *Cluster) deleteApp(r *request, id string) (answer, error) {
	a := c.apps[id]
	if a == nil || a.def == nil {
		return answer{}, unknownApp(id)
	}
	apps := c.definitions()
	c.publishPost(r.client(), r.URL.Path, a.def)
	delete(apps, id)
	d, err := c.deploy(apps, c.newVersion(), nil, r.flag("force", true))
	if err != nil {
		return answer{}, err
	}
	return deployed(d), nil
}

func (c *Cluster) restartApp(r *request, id string) (answer, error) {
	a := c.apps[id]
	if a == nil || a.def == nil {
		return answer{}, unknownApp(id)
	}
	version := c.newVersion()
	apps := c.definitions()
	again := a.def.clone()
	again.Version, again.VersionInfo = version, &VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
	apps[id] = again.seal(c.release)
	d, err := c.deploy(apps, version, map[string]bool{id: true}, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	return deployed(d), nil
}

func (c *Cluster) serveVersions(r *request, id, version string) (answer, error) {
	a := c.apps[id]
	if a == nil || a.def == nil {
		return answer{}, unknownApp(id)
	}
	if r.Method != http.MethodGet {
		return notAllowed(r)
	}
	versions := []string{}
	for _, def := range slices.Backward(a.versions) {
		if def.Version == version {
			return ok(json.RawMessage(def.document()))
		}
		versions = append(versions, def.Version)
	}
	if version != "" {
		return answer{}, message(http.StatusNotFound, "App '%s' does not exist in version %s", id, version)
	}
	return ok(object("versions", versions))
}
