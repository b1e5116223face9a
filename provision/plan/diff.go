package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

// unitDirectory is where units are put.
const unitDirectory = "/etc/systemd/system"

// Diff is what has to change on a machine so that it is what the parts, in the
// order of waves, say: one [Host] per part that needs a change, by component. mask
// hides secrets in what the plan shows.
func Diff(parts []*desired.Part, found *facts.Facts, mask func(string) string) map[string]*Host {
	d := &differ{found: found, mask: mask, wanted: map[string]bool{}, runs: map[string]bool{}, planned: map[string]bool{}, touched: map[string][]string{}, retouched: map[string][]string{}}
	for _, p := range parts {
		for _, f := range allFiles(p) {
			d.wanted[f.Path] = true
		}
		for _, u := range p.Units {
			d.wanted[u.Name] = true
			d.runs[u.Name] = u.State == desired.Running
		}
	}
	hosts := map[string]*Host{}
	for _, p := range parts {
		h := &Host{Node: found.Node, Part: p, Stamps: map[string]string{}, Units: map[string]map[string]string{}}
		d.contents(h, p)
		hosts[p.Component] = h
	}
	hashes := hashes(parts)
	for _, p := range parts {
		d.units(hosts[p.Component], p, hashes)
	}
	d.strangers(parts, hosts, hashes)
	for _, p := range parts {
		h := hosts[p.Component]
		if len(h.Changes) == 0 {
			delete(hosts, p.Component)
			continue
		}
		d.manifest(h, p)
	}
	return hosts
}

// allFiles are all files of a part, with those that its repositories and units are.
func allFiles(p *desired.Part) []desired.File {
	var all []desired.File
	for _, r := range p.Repositories {
		all = append(all, r.Files...)
	}
	all = append(all, p.Files...)
	for _, u := range p.Units {
		all = append(all, unitFiles(u)...)
	}
	return all
}

// unitFiles are the files that a unit consists of.
func unitFiles(u desired.Unit) []desired.File {
	var all []desired.File
	if u.Content != "" && u.State != desired.Masked {
		all = append(all, desired.File{Path: path.Join(unitDirectory, u.Name), Mode: 0o644, Owner: "root:root", Content: u.Content})
	}
	names := make([]string, 0, len(u.DropIns))
	for name := range u.DropIns {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		all = append(all, desired.File{Path: path.Join(unitDirectory, u.Name+".d", name), Mode: 0o644, Owner: "root:root", Content: u.DropIns[name]})
	}
	return all
}

// differ compares one machine.
type differ struct {
	found  *facts.Facts
	mask   func(string) string
	wanted map[string]bool // files and units of all parts
	runs   map[string]bool // units that a part wants to run
	// planned are the packages and masks that an earlier part has already.
	planned map[string]bool
	// touched and retouched are the units that restart and reload, with what for.
	touched, retouched map[string][]string
}

func (d *differ) touch(what string, restarts, reloads []string) {
	for _, u := range restarts {
		d.touched[u] = append(d.touched[u], what)
	}
	for _, u := range reloads {
		d.retouched[u] = append(d.retouched[u], what)
	}
}

// contents compares all of a part but what units do.
func (d *differ) contents(h *Host, p *desired.Part) {
	for _, r := range p.Repositories {
		for _, f := range r.Files {
			d.file(h, f, RepositoryFile)
		}
	}
	for i := range p.Packages {
		d.pack(h, &p.Packages[i])
	}
	for i := range p.Users {
		d.user(h, &p.Users[i])
	}
	for i := range p.Directories {
		d.directory(h, &p.Directories[i])
	}
	for i := range p.Programs {
		d.program(h, &p.Programs[i])
	}
	for _, f := range p.Files {
		d.file(h, f, File)
	}
	for _, u := range p.Units {
		for _, f := range unitFiles(u) {
			kind := UnitFile
			if path.Dir(f.Path) != unitDirectory {
				kind = DropIn
			}
			f.Restarts = []string{u.Name}
			d.file(h, f, kind)
		}
	}
	d.leftFiles(h, p)
}

// again says whether something was planned before, and notes that it is.
func (d *differ) again(what string) bool {
	before := d.planned[what]
	d.planned[what] = true
	return before
}

func (d *differ) pack(h *Host, p *desired.Package) {
	for _, unit := range p.Masked {
		// Of several components with one package, another may want the unit.
		if d.found.Units[unit].Enabled != "masked" && !d.runs[unit] && !d.again("mask "+unit) {
			h.Changes = append(h.Changes, Change{Sign: Add, Kind: Mask, Name: unit, Why: "the package " + p.Name + " brings it, and it must not run"})
		}
	}
	installed := d.found.Packages[p.Name]
	if (installed == "" || p.Version != "" && installed != p.Version) && d.again("package "+p.Name+" "+p.Version) {
		d.touch("package "+p.Name, p.Restarts, nil)
		return
	}
	switch {
	case installed == "":
		h.Changes = append(h.Changes, Change{Sign: Add, Kind: Package, Name: p.Name, What: p.Version, Package: p})
	case p.Version != "" && installed != p.Version:
		h.Changes = append(h.Changes, Change{Sign: Modify, Kind: Package, Name: p.Name, What: installed + " -> " + p.Version, Package: p})
	case p.Version != "" && !slices.Contains(d.found.Held, p.Name) && d.found.System.Family == facts.Debian:
		h.Changes = append(h.Changes, Change{Sign: Modify, Kind: Package, Name: p.Name, What: "keep it at " + installed, Package: p})
		return // nothing that runs is touched by that
	default:
		return
	}
	d.touch("package "+p.Name, p.Restarts, nil)
}

func (d *differ) user(h *Host, u *desired.User) {
	found, ok := d.found.Users[u.Name]
	if !ok {
		h.Changes = append(h.Changes, Change{Sign: Add, Kind: User, Name: u.Name, What: groupsText(u.Groups), User: u})
		return
	}
	var missing []string
	for _, g := range u.Groups {
		if !slices.Contains(found.Groups, g) {
			missing = append(missing, g)
		}
	}
	if len(missing) > 0 {
		h.Changes = append(h.Changes, Change{Sign: Modify, Kind: User, Name: u.Name, What: "also " + groupsText(missing), User: u})
	}
}

func groupsText(groups []string) string {
	if len(groups) == 0 {
		return ""
	}
	return "in " + strings.Join(groups, ", ")
}

func (d *differ) directory(h *Host, w *desired.Directory) {
	found, ok := d.found.Files[w.Path]
	switch what := attributes(found, w.Mode, w.Owner); {
	case !ok:
		h.Changes = append(h.Changes, Change{Sign: Add, Kind: Directory, Name: w.Path, What: fmt.Sprintf("%s %04o", w.Owner, modeBits(w.Mode)), Dir: w})
	case !found.Directory:
		h.Changes = append(h.Changes, Change{Sign: Modify, Kind: Directory, Name: w.Path, What: "there is a file of that name", Dir: w})
	case what != "":
		h.Changes = append(h.Changes, Change{Sign: Modify, Kind: Directory, Name: w.Path, What: what, Dir: w})
	}
}

// attributes says how mode and owner differ; "" if they do not.
func attributes(found facts.File, mode fs.FileMode, owner string) string {
	var all []string
	if owner != "" && found.Owner != fullOwner(owner) {
		all = append(all, found.Owner+" -> "+fullOwner(owner))
	}
	if found.Mode&^fs.ModeIrregular != mode {
		all = append(all, fmt.Sprintf("%04o -> %04o", modeBits(found.Mode), modeBits(mode)))
	}
	return strings.Join(all, ", ")
}

// fullOwner is user:group; the group is named like the user where none is.
func fullOwner(owner string) string {
	if !strings.Contains(owner, ":") {
		return owner + ":" + owner
	}
	return owner
}

func modeBits(m fs.FileMode) uint32 {
	bits := uint32(m.Perm())
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if m&flag != 0 {
			bits |= bit
		}
	}
	return bits
}

func (d *differ) program(h *Host, p *desired.Program) {
	found, ok := d.found.Files[p.Path]
	stamp := "program." + pathID(p.Path)
	identity := p.Identity()
	noted, _, _ := strings.Cut(strings.TrimSpace(d.found.Stamps[stamp]), " ")
	change := Change{Kind: Program, Name: p.Path, What: artefactText(p), Program: p}
	switch {
	case !ok:
		change.Sign = Add
	case noted != identity:
		change.Sign = Modify
	case strings.TrimSpace(d.found.Stamps[stamp]) != ProgramStamp(*p, found):
		change.Sign, change.Why = Modify, "it is not as it was installed"
	case p.Mode != 0 && !p.Tree && found.Mode != p.Mode:
		change.Sign, change.What, change.Attributes = Modify, attributes(found, p.Mode, ""), true
		h.Changes = append(h.Changes, change)
		return
	default:
		return
	}
	h.Changes = append(h.Changes, change)
	h.Spoils = append(h.Spoils, stamp)
	d.touch("program "+p.Path, p.Restarts, nil)
}

// ProgramStamp is what is noted of a program that was installed: which it is, and
// how the file looks, so that another in its place is noticed.
func ProgramStamp(p desired.Program, found facts.File) string {
	if p.Tree {
		return p.Identity()
	}
	return fmt.Sprintf("%s %d %d", p.Identity(), found.Size, found.Modified)
}

// ProgramStampName is the name of that stamp.
func ProgramStampName(p desired.Program) string { return "program." + pathID(p.Path) }

// pathID is a path as a part of a file's name.
func pathID(p string) string {
	sum := sha256.Sum256([]byte(p))
	return hex.EncodeToString(sum[:8])
}

func artefactText(p *desired.Program) string {
	a := p.Artefact
	from := a.File
	if a.URL != "" {
		from = a.URL
	}
	if p.Member != "" {
		from = p.Member + " of " + from
	}
	text := "from " + from
	if a.Version != "" {
		text = a.Version + " " + text
	}
	if len(a.SHA256) >= 12 {
		text += " (sha256 " + a.SHA256[:12] + "…)"
	}
	return text
}

func (d *differ) file(h *Host, w desired.File, kind Kind) {
	found, exists := d.found.Files[w.Path]
	change := Change{Kind: kind, Name: w.Path, File: &w}
	sum := sha256.Sum256([]byte(w.Bytes()))
	then := ThenStamp(w)
	thenDone := w.Then == "" || w.Once || strings.TrimSpace(d.found.Stamps[then]) == hex.EncodeToString(sum[:])
	switch {
	case exists && found.Directory:
		change.Sign, change.What = Modify, "there is a directory of that name"
	case !exists && w.Once && w.OnlyWith != "" && d.isUsed(w.OnlyWith):
		return
	case !exists:
		change.Sign, change.What = Add, d.size(w)
	case w.Once:
		return
	default:
		same := found.SHA256 == hex.EncodeToString(sum[:]) || w.Same != nil && found.Size == int64(len(found.Content)) && w.Same(found.Content, w.Bytes())
		what := attributes(found, w.Mode, w.Owner)
		switch {
		case !same && w.Secret.IsEmpty():
			change.Diff = d.mask(unified(found.Content, w.Content))
		case !same:
			what = strings.TrimPrefix(what+", the content (hidden)", ", ")
		case what == "" && thenDone:
			return
		case what == "":
			change.Kind, change.Name, change.What = Then, w.Then, "of "+w.Path
		}
		change.Sign = Modify
		if change.Kind != Then {
			change.What = what
		}
		if same { // nobody reads modes again
			change.Attributes = change.Kind != Then
			h.Changes = append(h.Changes, change)
			if !thenDone {
				h.Stamps[then] = hex.EncodeToString(sum[:])
			}
			return
		}
	}
	if w.Then != "" && !w.Once {
		h.Spoils = append(h.Spoils, then)
		h.Stamps[then] = hex.EncodeToString(sum[:])
	}
	h.Changes = append(h.Changes, change)
	d.touch(string(kind)+" "+w.Path, w.Restarts, w.Reloads)
}

// ThenStamp is the stamp of the command that runs after a change of a file.
func ThenStamp(f desired.File) string { return "then." + pathID(f.Path) }

func (d *differ) isUsed(directory string) bool {
	f, ok := d.found.Files[directory]
	return ok && !f.Empty
}

func (d *differ) size(w desired.File) string {
	if !w.Secret.IsEmpty() {
		return "(hidden)"
	}
	lines := strings.Count(w.Content, "\n")
	if lines == 1 {
		return "1 line"
	}
	return fmt.Sprintf("%d lines", lines)
}

// unified is the difference of two texts, without the lines that name them.
func unified(old, new string) string {
	text := string(diff.Diff("a", []byte(old), "b", []byte(new)))
	for range 3 {
		if _, rest, ok := strings.Cut(text, "\n"); ok {
			text = rest
		}
	}
	return text
}
