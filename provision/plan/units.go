package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// triggers are the hashes of all that restarts, and all that reloads, a unit.
type triggers struct{ restart, reload string }

// hashes are the triggers of all units. They follow from what is wanted, not from
// what is found: a unit whose stamp has this hash runs what is wanted.
func hashes(parts []*desired.Part) map[string]triggers {
	restarts, reloads := map[string][]string{}, map[string][]string{}
	add := func(to map[string][]string, units []string, format string, arguments ...any) {
		for _, u := range units {
			to[u] = append(to[u], fmt.Sprintf(format, arguments...))
		}
	}
	for _, p := range parts {
		for _, x := range p.Packages {
			add(restarts, x.Restarts, "package %q %q", x.Name, x.Version)
		}
		for _, x := range p.Programs {
			add(restarts, x.Restarts, "program %q %q", x.Path, x.Identity())
		}
		for _, x := range p.Files {
			if x.Once {
				continue
			}
			sum := sha256.Sum256([]byte(x.Bytes()))
			add(restarts, x.Restarts, "file %q %x", x.Path, sum)
			add(reloads, x.Reloads, "file %q %x", x.Path, sum)
		}
		for _, u := range p.Units {
			restarts[u.Name] = append(restarts[u.Name], "unit")
			for _, f := range unitFiles(u) {
				add(restarts, []string{u.Name}, "file %q %q", f.Path, f.Content)
			}
		}
	}
	all := map[string]triggers{}
	for _, lists := range []map[string][]string{restarts, reloads} {
		for u := range lists {
			all[u] = triggers{hash(restarts[u]), hash(reloads[u])}
		}
	}
	return all
}

// hash is one of a set of lines; "" of none.
func hash(lines []string) string {
	if len(lines) == 0 {
		return ""
	}
	slices.Sort(lines)
	sum := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(sum[:])
}

// RestartStamp and ReloadStamp name the stamps of a unit.
func RestartStamp(unit string) string { return "restart." + unit }

// ReloadStamp is the stamp of what reloads a unit.
func ReloadStamp(unit string) string { return "reload." + unit }

func isActive(u facts.Unit) bool {
	return slices.Contains([]string{"active", "activating", "reloading"}, u.Active)
}

// units compares what the units of a part do.
func (d *differ) units(h *Host, p *desired.Part, all map[string]triggers) {
	for i := range p.Units {
		u := &p.Units[i]
		found := d.found.Units[u.Name]
		enabled := slices.Contains([]string{"enabled", "enabled-runtime", "linked", "alias"}, found.Enabled)
		switch u.State {
		case desired.Masked:
			if found.Enabled != "masked" && !d.again("mask "+u.Name) {
				h.Changes = append(h.Changes, Change{Sign: Add, Kind: Mask, Name: u.Name, Unit: u})
			}
		case desired.Stopped:
			if isActive(found) || enabled {
				h.Changes = append(h.Changes, Change{Sign: Remove, Kind: Stop, Name: u.Name, Unit: u})
			}
		default:
			canEnable := found.Enabled == "" || found.Enabled == "disabled" || found.Enabled == "masked"
			if canEnable {
				h.Changes = append(h.Changes, Change{Sign: Add, Kind: Enable, Name: u.Name, Unit: u})
			}
			d.activity(h, u, found, all[u.Name])
		}
	}
}

// activity says whether a unit that should run is to be started, restarted or
// reloaded.
func (d *differ) activity(h *Host, u *desired.Unit, found facts.Unit, t triggers) {
	stamps := map[string]string{RestartStamp(u.Name): t.restart}
	if t.reload != "" {
		stamps[ReloadStamp(u.Name)] = t.reload
	}
	change := Change{Name: u.Name, Unit: u}
	switch {
	case !isActive(found):
		change.Sign, change.Kind = Add, Start
		if found.Active == "failed" {
			change.Why = "it has failed"
		}
	case len(d.touched[u.Name]) > 0:
		change.Sign, change.Kind, change.Why = Modify, Restart, because(d.touched[u.Name])
	case d.stamp(RestartStamp(u.Name)) != t.restart:
		change.Sign, change.Kind, change.Why = Modify, Restart, "it may run what was there before an earlier run changed it"
	case len(d.retouched[u.Name]) > 0:
		change.Sign, change.Kind, change.Why = Modify, Reload, because(d.retouched[u.Name])
		stamps = map[string]string{ReloadStamp(u.Name): t.reload}
	case d.stamp(ReloadStamp(u.Name)) != t.reload:
		change.Sign, change.Kind, change.Why = Modify, Reload, "it may use what was there before an earlier run changed it"
		stamps = map[string]string{ReloadStamp(u.Name): t.reload}
	default:
		return
	}
	h.Changes = append(h.Changes, change)
	h.Units[u.Name] = stamps
}

func (d *differ) stamp(name string) string { return strings.TrimSpace(d.found.Stamps[name]) }

// because names what a restart is for.
func because(things []string) string {
	const most = 3
	if len(things) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(things[:most], ", "), len(things)-most)
	}
	return strings.Join(things, ", ")
}

// strangers are units that files restart and that no part has: the system's own.
// They are restarted where they run, by the last part that wants it.
func (d *differ) strangers(parts []*desired.Part, hosts map[string]*Host, all map[string]triggers) {
	for _, p := range slices.Backward(parts) {
		restarts, reloads := p.Triggers()
		for _, name := range slices.Compact(slices.Sorted(slices.Values(append(restarts, reloads...)))) {
			if d.wanted[name] || !isActive(d.found.Units[name]) {
				continue
			}
			d.wanted[name] = true
			d.activity(hosts[p.Component], &desired.Unit{Name: name, State: desired.Running}, d.found.Units[name], all[name])
		}
	}
}

// manifest is what a component has put on a machine.
type manifest struct {
	// Files are by path; what restarts if they go.
	Files map[string][]string `json:"files"`
	// Units are those that the component has brought itself.
	Units       []string `json:"units"`
	Programs    []string `json:"programs"`
	Directories []string `json:"directories"`
}

// ManifestStamp is the stamp of what a component has put on a machine.
func ManifestStamp(component string) string { return "part." + component }

func manifestOf(p *desired.Part) manifest {
	m := manifest{Files: map[string][]string{}}
	for _, r := range p.Repositories {
		for _, f := range r.Files {
			m.Files[f.Path] = []string{}
		}
	}
	for _, f := range p.Files {
		if !f.Once {
			m.Files[f.Path] = append(slices.Clone(f.Restarts), f.Reloads...)
		}
	}
	for _, u := range p.Units {
		for _, f := range unitFiles(u) {
			m.Files[f.Path] = []string{u.Name}
		}
		if u.Content != "" {
			m.Units = append(m.Units, u.Name)
		}
	}
	for _, x := range p.Programs {
		m.Programs = append(m.Programs, x.Path)
	}
	for _, x := range p.Directories {
		m.Directories = append(m.Directories, x.Path)
	}
	return m
}

func (m manifest) text() string {
	data, err := json.Marshal(m)
	if err != nil { // it is made of strings
		panic(err)
	}
	return string(data)
}

// noted is what was noted of a component; empty if nothing was.
func noted(found *facts.Facts, component string) manifest {
	var m manifest
	// A stamp that cannot be read is as good as none: nothing is removed then.
	if json.Unmarshal([]byte(found.Stamps[ManifestStamp(component)]), &m) != nil {
		return manifest{}
	}
	return m
}

// leftFiles are files and units that an earlier run has put there for this
// component, and that nobody wants any more.
func (d *differ) leftFiles(h *Host, p *desired.Part) {
	old := noted(d.found, p.Component)
	for _, file := range slices.Sorted(maps.Keys(old.Files)) {
		if _, exists := d.found.Files[file]; d.wanted[file] || !exists {
			continue
		}
		kind := File
		switch directory := path.Dir(file); {
		case directory == unitDirectory:
			kind = UnitFile
		case path.Dir(directory) == unitDirectory:
			kind = DropIn
		}
		what := ""
		if kind == UnitFile && slices.Contains(old.Units, path.Base(file)) {
			what = "and stop it"
		}
		h.Changes = append(h.Changes, Change{Sign: Remove, Kind: kind, Name: file, What: what, Why: "nothing wants it any more"})
		d.touch("removed "+file, old.Files[file], nil)
	}
}

// manifest completes a host that has changes.
func (d *differ) manifest(h *Host, p *desired.Part) {
	for _, stamps := range h.Units {
		h.Spoils = slices.AppendSeq(h.Spoils, maps.Keys(stamps))
	}
	slices.Sort(h.Spoils)
	now := manifestOf(p)
	h.Stamps[ManifestStamp(p.Component)] = now.text()
	both := noted(d.found, p.Component)
	if both.Files == nil {
		both.Files = map[string][]string{}
	}
	maps.Copy(both.Files, now.Files)
	both.Units = union(both.Units, now.Units)
	both.Programs = union(both.Programs, now.Programs)
	both.Directories = union(both.Directories, now.Directories)
	h.Manifest = both.text()
	rank := func(c Change) int { return slices.Index(order, c.Kind) }
	slices.SortStableFunc(h.Changes, func(a, b Change) int { return rank(a) - rank(b) })
}

// order is in which changes are made.
var order = []Kind{RepositoryFile, Mask, Package, User, Directory, Program, File, UnitFile, DropIn, Then, Stop, Enable, Start, Restart, Reload}

func union(a, b []string) []string {
	all := append(slices.Clone(a), b...)
	slices.Sort(all)
	return slices.Compact(all)
}

// Left are the components of which a machine still has parts, though it should
// have none of them.
func Left(found *facts.Facts, parts []*desired.Part) []string {
	var all []string
	for name := range found.Stamps {
		c, ok := strings.CutPrefix(name, "part.")
		if ok && !slices.ContainsFunc(parts, func(p *desired.Part) bool { return p.Component == c }) {
			all = append(all, c)
		}
	}
	slices.Sort(all)
	return all
}
