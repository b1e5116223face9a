package marathon

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mi-lb/mi-lb/watch"
)

// document is what an app document of any Marathon from 0.8 to 1.11 says that
// matters for routing, before host names are resolved and before what was known
// earlier is taken into account.
type document struct {
	app      watch.App // without Tasks
	networks []string
	mode     networkMode
	ports    []port // parallel to app.Ports
	// tasks are those listed; tasksKnown is false where the document has no list
	// of tasks, which is not the same as an empty one.
	tasks      []taskDocument
	tasksKnown bool
	// firstResult is how long after its start a task may go without a result of
	// a health check.
	firstResult time.Duration
	// readyWithin is how long a readiness check takes to give its first result; 0
	// where there is none or nothing is being deployed.
	readyWithin time.Duration
	ready       map[string]bool
	findings    []watch.Finding
}

// taskDocument is one element of an app's tasks.
type taskDocument struct {
	id, host, state, version string
	startedAt, stagedAt      time.Time
	ports                    []int
	addresses                []netip.Addr
	verdict                  verdict
}

// decodeApps reads the answer of GET /v2/apps. An app that cannot be read at
// all costs itself only: nameless counts those whose id is not known either, so
// that an app missing from the list may be one of them.
func decodeApps(source string, body []byte) (docs []*document, nameless int, findings []watch.Finding, err error) {
	var list struct {
		Apps *[]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, 0, nil, fmt.Errorf("reading the list of apps: %w", err)
	}
	if list.Apps == nil {
		return nil, 0, nil, fmt.Errorf("reading the list of apps: the answer has no %q", "apps")
	}
	seen := make(map[string]bool, len(*list.Apps))
	for i, raw := range *list.Apps {
		doc, err := decodeApp(source, raw)
		if err != nil {
			nameless++
			findings = append(findings, watch.Finding{
				Code: "invalid-document", Source: source, Key: fmt.Sprintf("apps[%d]", i),
				Message: err.Error(), Instead: "the app is left as it was last known",
			})
			continue
		}
		if seen[doc.app.ID] {
			findings = append(findings, watch.Finding{
				Code: "invalid-document", Source: source, Service: watch.Printable(doc.app.ID), Key: "id",
				Message: "the app is listed twice", Instead: "the first one is used",
			})
			continue
		}
		seen[doc.app.ID] = true
		docs = append(docs, doc)
	}
	return docs, nameless, findings, nil
}

// decodeSingle reads the answer of GET /v2/apps/{id}.
func decodeSingle(source string, body []byte) (*document, error) {
	var one struct {
		App json.RawMessage `json:"app"`
	}
	if err := json.Unmarshal(body, &one); err != nil {
		return nil, fmt.Errorf("reading the app: %w", err)
	}
	if absent(one.App) {
		return nil, fmt.Errorf("reading the app: the answer has no %q", "app")
	}
	doc, err := decodeApp(source, one.App)
	if err != nil {
		return nil, fmt.Errorf("reading the app: %w", err)
	}
	return doc, nil
}

// decodeApp reads one app document. It only fails where there is no telling
// which app it is.
func decodeApp(source string, raw json.RawMessage) (*document, error) {
	var o object
	if err := json.Unmarshal(raw, &o); err != nil || o == nil {
		return nil, fmt.Errorf("an app must be an object, found %s", kindOf(raw))
	}
	var id string
	if json.Unmarshal(o["id"], &id) != nil || strings.Trim(id, "/") == "" {
		return nil, fmt.Errorf("the app has no id")
	}
	if id[0] != '/' {
		id = "/" + id
	}
	c := &complaints{source: source, app: id}
	container := c.object(o, "container")
	docker := c.object(container, "docker")
	d := &document{app: watch.App{
		ID:      id,
		Labels:  c.strings(o, "labels"),
		Env:     c.serviceEnv(o),
		Image:   c.string(docker, "image"),
		Version: c.string(o, "version"),
	}}
	d.app.KillGrace, _ = c.seconds(o, "taskKillGracePeriodSeconds")
	d.mode, d.networks = c.network(o, docker)
	d.ports = c.ports(o, container, docker, d.mode)
	for _, p := range d.ports {
		d.app.Ports = append(d.app.Ports, p.AppPort)
	}
	d.app.HealthChecks, d.firstResult = c.healthChecks(o)
	d.readyWithin, d.ready = c.readiness(o)
	d.tasks, d.tasksKnown = c.tasks(o)
	d.findings = c.all()
	return d, nil
}

// serviceEnv is the SERVICE_* variables that are plain strings. The others,
// secrets among them, are not even decoded.
func (c *complaints) serviceEnv(o object) map[string]string {
	env := map[string]string{}
	for name, raw := range c.object(o, "env") {
		var value string
		if strings.HasPrefix(name, "SERVICE_") && !absent(raw) && json.Unmarshal(raw, &value) == nil {
			env[name] = value
		}
	}
	if len(env) == 0 {
		return nil
	}
	return env
}

func (c *complaints) tasks(o object) ([]taskDocument, bool) {
	raw, known := c.list(o, "tasks")
	if !known {
		return nil, false
	}
	tasks := make([]taskDocument, 0, len(raw))
	seen := make(map[string]bool, len(raw))
	for i, r := range raw {
		t := c.asObject(fmt.Sprintf("tasks[%d]", i), r)
		if t == nil {
			continue
		}
		task := taskDocument{
			id:        c.string(t, "id"),
			host:      c.string(t, "host"),
			state:     c.string(t, "state"),
			version:   c.string(t, "version"),
			startedAt: c.time(t, "startedAt"),
			stagedAt:  c.time(t, "stagedAt"),
			verdict:   c.verdict(t),
		}
		if task.id == "" || seen[task.id] {
			c.add(watch.Finding{
				Code: "invalid-document", Key: fmt.Sprintf("tasks[%d].id", i),
				Message: "missing or used twice", Instead: "the task is ignored",
			})
			continue
		}
		seen[task.id] = true
		if task.state == "" {
			// Marathon before 0.14 gives no state; a started task is a running one.
			task.state = "TASK_STAGING"
			if !task.startedAt.IsZero() {
				task.state = "TASK_RUNNING"
			}
		}
		numbers, _ := c.list(t, "ports")
		for j, n := range numbers {
			number, _ := c.port(fmt.Sprintf("tasks[%d].ports[%d]", i, j), n)
			task.ports = append(task.ports, number)
		}
		for _, a := range c.objects(t, "ipAddresses") {
			if addr, err := netip.ParseAddr(c.string(a, "ipAddress")); err == nil {
				task.addresses = append(task.addresses, addr.Unmap().WithZone(""))
			}
		}
		tasks = append(tasks, task)
	}
	slices.SortFunc(tasks, func(a, b taskDocument) int { return strings.Compare(a.id, b.id) })
	return tasks, true
}

// hosts are the names and addresses of the agents that the document's tasks run on.
func (d *document) hosts() []string {
	var all []string
	for _, t := range d.tasks {
		if t.host != "" {
			all = append(all, t.host)
		}
	}
	return all
}
