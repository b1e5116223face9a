package routing

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/watch"
)

// appName is what an app as a whole is called.
type appName struct {
	name string
	// finding says why it is not called what it would be; empty for none.
	finding watch.Finding
}

type appKey struct {
	source watch.Source
	id     string
}

// A namesake is an app that would have a name because of its id.
type namesake struct {
	appKey
	local bool
}

// settleNames decides between apps whose ids look alike (/a/b and /a-b): one id has the
// name, in whatever clusters. held is the id that had it before.
func settleNames(name string, apps []namesake, held string) map[appKey]appName {
	names := make(map[appKey]appName, len(apps))
	winner := slices.MinFunc(apps, func(a, b namesake) int {
		return firstTrue(a.id == held, b.id == held, a.local, b.local, a.id, b.id)
	}).id
	for _, a := range apps {
		if a.id == winner {
			names[a.appKey] = appName{name: name}
			continue
		}
		names[a.appKey] = appName{name: strings.ToLower(a.id), finding: watch.Finding{
			Code: "name-taken", Source: a.source.String(), Service: strings.ToLower(a.id),
			Message: fmt.Sprintf("the name %q is that of the app %s", name, watch.Printable(winner)),
			Instead: "it is reachable by its service ports only; give it another name with the label mi-lb.service",
		}}
	}
	return names
}

// firstTrue orders by two conditions, then by text.
func firstTrue(a1, b1, a2, b2 bool, a, b string) int {
	switch {
	case a1 != b1 && a1, a1 == b1 && a2 != b2 && a2:
		return -1
	case a1 != b1, a2 != b2:
		return 1
	}
	return strings.Compare(a, b)
}

// askedName is the name that an app asks for, "" if for none.
func askedName(app *watch.App) string {
	candidates := []string{app.Labels[keyPrefix+".service"]}
	if len(app.Ports) == 1 {
		candidates = append(candidates, app.Env["SERVICE_"+strconv.Itoa(app.Ports[0].ContainerPort)+"_NAME"])
	}
	candidates = append(candidates, app.Env["SERVICE_NAME"])
	for _, name := range candidates {
		if name, err := parseServiceName(strings.TrimSpace(name)); err == nil {
			return name
		}
	}
	return ""
}

func dashed(id string) string {
	return strings.ToLower(strings.ReplaceAll(strings.Trim(id, "/"), "/", "-"))
}

// portNames are the name of an app's port and the others it answers to. The first
// port has the app's name; the others, as with Registrator, their port's number
// appended, where nothing names them.
func portNames(app string, a *watch.App, index int, wishes []wish) (name string, aliases []string) {
	number := ""
	if index < len(a.Ports) {
		port := a.Ports[index]
		switch {
		case port.ContainerPort > 0:
			number = strconv.Itoa(port.ContainerPort)
		case port.Name != "":
			number = strings.ToLower(port.Name)
		default:
			number = strconv.Itoa(index)
		}
	}
	asked := ""
	for _, w := range wishes {
		if w.key == "service" {
			if n, err := parseServiceName(w.value); err == nil {
				asked = n
			}
		}
	}
	env := ""
	if n, err := parseServiceName(a.Env["SERVICE_"+number+"_NAME"]); err == nil && number != "" {
		env = n
	}
	name = app
	if index > 0 {
		name = app + "-" + number
		if env != "" {
			name = env
		}
		if asked != "" {
			name = asked
		}
	}
	candidates := []string{env}
	if index == 0 {
		if n, err := parseServiceName(a.Env["SERVICE_NAME"]); err == nil {
			candidates = append(candidates, n)
		}
		candidates = append(candidates, dashed(a.ID))
		if len(a.Ports) > 1 {
			candidates = append(candidates, app+"-"+number)
		}
	}
	for _, c := range candidates {
		if c != "" && c != name {
			aliases = append(aliases, c)
		}
	}
	return name, aliases
}

// isInfrastructure says whether a name is one that the platform itself uses.
func isInfrastructure(name string) bool {
	for _, base := range infrastructure {
		rest, ok := strings.CutPrefix(name, base)
		if !ok {
			continue
		}
		if rest == "" {
			return true
		}
		if suffix, ok := strings.CutPrefix(rest, "-"); ok {
			if _, err := strconv.Atoi(suffix); err == nil || slices.Contains(infrastructureParts, suffix) {
				return true
			}
		}
	}
	return false
}
