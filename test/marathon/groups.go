package marathon

import (
	"cmp"
	"encoding/json"
	"maps"
	"path"
	"slices"
	"strings"
)

// group is what a group has beside its apps.
type group struct {
	dependencies []string
	version      string
}

// groupDocument is a group's JSON.
type groupDocument struct {
	ID           string            `json:"id"`
	Apps         []json.RawMessage `json:"apps"`
	Groups       []groupDocument   `json:"groups"`
	Pods         []string          `json:"pods"`
	Dependencies []string          `json:"dependencies"`
	Version      string            `json:"version"`
}

// groupUpdate is a group as clients send it.
type groupUpdate struct {
	ID           *string           `json:"id"`
	Apps         []json.RawMessage `json:"apps"`
	Groups       []groupUpdate     `json:"groups"`
	Dependencies []string          `json:"dependencies"`
	ScaleBy      *float64          `json:"scaleBy"`
	Version      *string           `json:"version"`
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// within says whether an app or group is in a group, at any depth.
func within(id, group string) bool {
	return group == "/" || strings.HasPrefix(id, group+"/")
}

// groupIDs are all groups: those made, and those that apps are in.
func groupIDs(apps map[string]*Definition, groups map[string]group) map[string]bool {
	ids := map[string]bool{"/": true}
	add := func(id string) {
		for ; id != "/"; id = path.Dir(id) {
			ids[id] = true
		}
	}
	for id := range apps {
		add(path.Dir(id))
	}
	for id := range groups {
		add(id)
	}
	return ids
}

// groupTree renders a group with all that is in it.
func groupTree(id string, apps map[string]*Definition, groups map[string]group, version string) groupDocument {
	appsIn, groupsIn := map[string][]string{}, map[string][]string{}
	for _, app := range sortedKeys(apps) {
		appsIn[path.Dir(app)] = append(appsIn[path.Dir(app)], app)
	}
	for _, group := range sortedKeys(groupIDs(apps, groups)) {
		if group != "/" {
			groupsIn[path.Dir(group)] = append(groupsIn[path.Dir(group)], group)
		}
	}
	var render func(id string) groupDocument
	render = func(id string) groupDocument {
		document := groupDocument{
			ID: id, Apps: []json.RawMessage{}, Groups: []groupDocument{}, Pods: []string{},
			Dependencies: emptyIfNil(groups[id].dependencies), Version: cmp.Or(groups[id].version, version),
		}
		for _, app := range appsIn[id] {
			document.Apps = append(document.Apps, apps[app].document())
		}
		for _, child := range groupsIn[id] {
			document.Groups = append(document.Groups, render(child))
		}
		return document
	}
	return render(id)
}

// applyGroup works an update of a group into the root group's apps and groups.
func (c *Cluster) applyGroup(id string, update groupUpdate, apps map[string]*Definition, groups map[string]group, version string) error {
	groups[id] = group{dependencies: groups[id].dependencies, version: version}
	if update.Dependencies != nil {
		var dependencies []string
		for _, dependency := range update.Dependencies {
			dependencies = append(dependencies, canonicalID(path.Dir(id), dependency))
		}
		groups[id] = group{dependencies: dependencies, version: version}
	}
	if update.ScaleBy != nil {
		for app, def := range apps {
			if within(app, id) {
				scaled := def.clone()
				scaled.Instances = int(float64(def.Instances)**update.ScaleBy + 0.999999)
				apps[app] = c.version(scaled, def, version)
			}
		}
		return nil
	}
	if update.Apps != nil {
		if err := c.applyGroupApps(id, update.Apps, apps, version); err != nil {
			return err
		}
	}
	if update.Groups == nil {
		return nil
	}
	kept := map[string]bool{}
	for _, child := range update.Groups {
		if child.ID == nil {
			return invalid("/groups", "a group must have an id")
		}
		childID := canonicalID(id, *child.ID)
		if !within(childID, id) {
			return invalid("/groups", "identifier %s is not child of '%s'. Hint: use relative paths.", childID, id)
		}
		kept[childID] = true
		if err := c.applyGroup(childID, child, apps, groups, version); err != nil {
			return err
		}
	}
	for known := range groupIDs(apps, groups) {
		if path.Dir(known) == id && known != id && !kept[known] {
			removeGroup(known, apps, groups)
		}
	}
	return nil
}

func (c *Cluster) applyGroupApps(id string, documents []json.RawMessage, apps map[string]*Definition, version string) error {
	before := map[string]*Definition{}
	for app, def := range apps {
		if path.Dir(app) == id {
			before[app] = def
			delete(apps, app)
		}
	}
	for _, document := range documents {
		def, err := c.parseApp(id, document)
		if err != nil {
			return err
		}
		if path.Dir(def.ID) != id {
			return invalid("/apps", "identifier %s is not child of '%s'. Hint: use relative paths.", def.ID, id)
		}
		if err := c.admit(def, before[def.ID], apps); err != nil {
			return err
		}
		apps[def.ID] = c.version(def, before[def.ID], version)
	}
	return nil
}

func removeGroup(id string, apps map[string]*Definition, groups map[string]group) {
	for app := range apps {
		if within(app, id) {
			delete(apps, app)
		}
	}
	for known := range groups {
		if known == id || within(known, id) {
			delete(groups, known)
		}
	}
}

// admit assigns a definition's service ports and refuses those that are taken.
func (c *Cluster) admit(def, before *Definition, apps map[string]*Definition) error {
	others := apps
	if before != nil {
		others = maps.Clone(apps)
		delete(others, def.ID)
	}
	if !c.options.AllowServicePortConflicts {
		if err := checkServicePorts(def, others); err != nil {
			return err
		}
	}
	used := servicePortsIn(others)
	return c.assignServicePorts(def, before, func(port int) bool { return used[port] })
}

// version gives a definition its version, or returns before itself where
// nothing changes.
func (c *Cluster) version(def, before *Definition, version string) *Definition {
	if before != nil && before.sameConfig(def) && before.Instances == def.Instances {
		return before
	}
	def.Version = version
	def.VersionInfo = &VersionInfo{LastScalingAt: version, LastConfigChangeAt: version}
	if before != nil && before.sameConfig(def) {
		def.VersionInfo.LastConfigChangeAt = before.configVersion()
	}
	return def.seal(c.release)
}
