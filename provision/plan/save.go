package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/google/renameio/v2"

	"github.com/mi-lb/mi-lb/provision/facts"
)

// format changes when a program that knows the last one would misread a plan.
const format = 1

// Fingerprint is what was found on a machine, as far as plans are made from it:
// short hashes by thing ("file /etc/hosts"), so that a later time can be compared
// without the plan having what was in the files.
func Fingerprint(f *facts.Facts) map[string]string {
	all := map[string]string{}
	add := func(kind, name string, value any) {
		data, err := json.Marshal(value)
		if err != nil { // facts can be encoded
			panic(err)
		}
		sum := sha256.Sum256(append(data, kind+name...))
		all[kind+" "+name] = hex.EncodeToString(sum[:6])
	}
	add("system", "", []any{f.System.ID, f.System.Version, f.System.Arch, f.System.Systemd, f.Cgroup})
	for name, version := range f.Packages {
		add("package", name, version)
	}
	for _, name := range f.Held {
		add("hold on package", name, true)
	}
	for name, u := range f.Users {
		add("user", name, u)
	}
	for name, x := range f.Files {
		if x.Directory { // files come and go in it
			add("directory", name, []any{x.Mode, x.Owner, x.Empty})
		} else if x.SHA256 == "" {
			add("file", name, []any{x.Mode, x.Owner, x.Size, x.Modified})
		} else {
			add("file", name, []any{x.Mode, x.Owner, x.SHA256})
		}
	}
	for name, u := range f.Units {
		add("unit", name, []any{u.Load, isActive(u), u.Enabled})
	}
	for name, text := range f.Stamps {
		add("stamp", name, text)
	}
	return all
}

// Save writes a plan to a file that only its owner can read.
func (p *Plan) Save(file string) error {
	p.Format = format
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("store the plan: %w", err)
	}
	if err := renameio.WriteFile(file, append(data, '\n'), 0o600, renameio.WithStaticPermissions(0o600)); err != nil {
		return fmt.Errorf("store the plan: %w", err)
	}
	return nil
}

// Load reads a plan that was stored. It says what was to be done; it cannot be
// applied by itself.
func Load(file string) (*Plan, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the plan: %w", err)
	}
	var p Plan
	if err := json.Unmarshal(data, &p); err != nil {
		return nil, fmt.Errorf("read the plan %s: it is none that mi-lb bootstrap plan --out has written: %w", file, err)
	}
	if p.Format != format {
		return nil, fmt.Errorf("read the plan %s: it has format %d, and this mi-lb knows format %d; make it again", file, p.Format, format)
	}
	return &p, nil
}

// ErrDrifted is a plan that does not fit any more.
var ErrDrifted = errors.New("the plan does not fit any more")

// Drift says how what is the case now differs from what the plan was made from:
// nothing if it may be applied. now is the plan that would be made now.
func (p *Plan) Drift(now *Plan) []string {
	all := p.FactsDrift(now)
	if len(all) > 0 {
		return all
	}
	a, b := p.changes(), now.changes()
	if p.Same(now) {
		return nil
	}
	for _, line := range a {
		if !slices.Contains(b, line) {
			all = append(all, "no longer needed: "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			all = append(all, "not in the plan: "+line)
		}
	}
	if len(all) == 0 {
		all = append(all, "the order of changes is another")
	}
	return all
}

// Same says whether another plan has the same changes.
func (p *Plan) Same(other *Plan) bool { return slices.Equal(p.changes(), other.changes()) }

// FactsDrift says how what is found on machines now differs from what the plan was
// made from.
func (p *Plan) FactsDrift(now *Plan) []string {
	var all []string
	for _, node := range slices.Sorted(maps.Keys(union2(p.Facts, now.Facts))) {
		before, was := p.Facts[node]
		after, is := now.Facts[node]
		switch {
		case !was:
			all = append(all, node+": it was not looked at when the plan was made")
			continue
		case !is:
			all = append(all, node+": it cannot be looked at now")
			continue
		}
		for _, thing := range slices.Sorted(maps.Keys(union2(before, after))) {
			switch a, b := before[thing], after[thing]; {
			case a == b:
			case a == "":
				all = append(all, node+": "+thing+" is there, and was not")
			case b == "":
				all = append(all, node+": "+thing+" is gone")
			default:
				all = append(all, node+": "+thing+" has changed")
			}
		}
	}
	return all
}

// changes are all changes as lines.
func (p *Plan) changes() []string {
	var all []string
	for _, w := range p.Waves {
		for _, h := range w.Hosts {
			for _, c := range h.Changes {
				all = append(all, fmt.Sprintf("%s: %s %s %s %s%s", h.Node, c.Sign, c.Kind, c.Name, c.What, c.Diff))
			}
		}
		for _, a := range w.Actions {
			all = append(all, fmt.Sprintf("%s in %s: %s (%s)", w.Component, a.Datacenter, a.Title, a.ID))
		}
	}
	return all
}

func union2[V any](a, b map[string]V) map[string]bool {
	all := map[string]bool{}
	for k := range a {
		all[k] = true
	}
	for k := range b {
		all[k] = true
	}
	return all
}
