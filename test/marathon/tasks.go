package marathon

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
)

// serveTasks is /v2/tasks and /v2/tasks/delete.
func (c *Cluster) serveTasks(r *request) (answer, error) {
	switch {
	case r.path == "" && r.Method == http.MethodGet:
		return c.listTasks(r)
	case r.path == "delete" && r.Method == http.MethodPost:
		var wanted struct {
			IDs []string `json:"ids"`
		}
		if err := json.Unmarshal(r.body, &wanted); err != nil {
			return answer{}, invalidJSON(err)
		}
		var tasks []*task
		for _, id := range wanted.IDs {
			if t := c.findTask(id); t != nil {
				tasks = append(tasks, t)
			}
		}
		return c.killTasks(r, tasks, func(killed []taskDocument) any { return object("tasks", killed) })
	case r.path == "":
		return notAllowed(r)
	}
	return answer{}, message(http.StatusNotFound, "URI not found: %s", r.URL.Path)
}

func (c *Cluster) listTasks(r *request) (answer, error) {
	accept := r.Header.Get("Accept")
	if strings.HasPrefix(accept, "text/plain") && c.release.atLeast(1, 10) {
		return answer{}, message(http.StatusNotAcceptable, "HTTP 406 Not Acceptable")
	}
	statuses := append(r.URL.Query()["status"], r.URL.Query()["status[]"]...)
	wanted := func(t *task) bool {
		if len(statuses) == 0 {
			return true
		}
		status := "staging"
		if t.state == stateRunning {
			status = "running"
		} else if t.state != stateStaging && t.state != stateStarting {
			return false
		}
		return slices.Contains(statuses, status)
	}
	tasks := []taskDocument{}
	for _, id := range sortedKeys(c.apps) {
		for _, t := range c.apps[id].tasks {
			if wanted(t) {
				tasks = append(tasks, c.taskDocument(t, true))
			}
		}
	}
	return ok(object("tasks", tasks))
}

// serveAppTasks is /v2/apps/{id}/tasks and one task below.
func (c *Cluster) serveAppTasks(r *request, id, taskID string) (answer, error) {
	a := c.apps[id]
	if id == "/*" && r.Method == http.MethodGet {
		return c.listTasks(r)
	}
	if a == nil || a.def == nil {
		return answer{}, unknownApp(id)
	}
	switch r.Method {
	case http.MethodGet:
		if taskID != "" {
			return answer{}, message(http.StatusNotFound, "URI not found: %s", r.URL.Path)
		}
		tasks := []taskDocument{}
		for _, t := range a.tasks {
			tasks = append(tasks, c.taskDocument(t, false))
		}
		return ok(object("tasks", tasks))
	case http.MethodDelete:
		host := r.URL.Query().Get("host")
		var tasks []*task
		for _, t := range a.tasks {
			if taskID != "" && t.id != taskID && t.instanceID != taskID || host != "" && t.agent.Hostname != host {
				continue
			}
			tasks = append(tasks, t)
		}
		if taskID == "" {
			return c.killTasks(r, tasks, func(killed []taskDocument) any { return object("tasks", killed) })
		}
		if len(tasks) == 0 {
			return answer{}, message(http.StatusNotFound, "Task '%s' does not exist", taskID)
		}
		return c.killTasks(r, tasks, func(killed []taskDocument) any { return object("task", killed[0]) })
	}
	return notAllowed(r)
}

// killTasks kills tasks; with scale their apps get as many instances fewer.
func (c *Cluster) killTasks(r *request, tasks []*task, body func([]taskDocument) any) (answer, error) {
	if r.flag("scale", false) {
		return c.scaleDown(r, tasks)
	}
	killed := []taskDocument{}
	for _, t := range tasks {
		killed = append(killed, c.taskDocument(t, false))
	}
	for _, t := range tasks {
		c.kill(t)
	}
	return ok(body(killed))
}

func (c *Cluster) scaleDown(r *request, tasks []*task) (answer, error) {
	apps := c.definitions()
	version := c.newVersion()
	fewer := map[string]int{}
	for _, t := range tasks {
		fewer[t.app]++
	}
	for id, n := range fewer {
		before := apps[id]
		if before == nil {
			return answer{}, unknownApp(id)
		}
		scaled := before.clone()
		scaled.Instances = max(0, before.Instances-n)
		apps[id] = c.version(scaled, before, version)
	}
	d, err := c.deploy(apps, version, nil, r.flag("force", false))
	if err != nil {
		return answer{}, err
	}
	for _, t := range tasks {
		c.kill(t)
	}
	return deployed(d), nil
}
