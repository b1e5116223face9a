package desired

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"

	"github.com/mi-lb/mi-lb/provision/cluster"
	"github.com/mi-lb/mi-lb/provision/redact"
)

// Part is what one component wants of one machine. It is applied in the order of
// its fields: repositories before packages, files before units.
type Part struct {
	// Component is whose part it is, as in [component.Component].
	Component    string       `json:"component"`
	Repositories []Repository `json:"repositories,omitempty"`
	Packages     []Package    `json:"packages,omitempty"`
	Users        []User       `json:"users,omitempty"`
	Directories  []Directory  `json:"directories,omitempty"`
	Programs     []Program    `json:"programs,omitempty"`
	Files        []File       `json:"files,omitempty"`
	Units        []Unit       `json:"units,omitempty"`
}

// Repository is a source of packages, which has files of its own: its list is
// read again when one of them changed.
type Repository struct {
	Files []File `json:"files"`
}

// Package is a package of the system's package manager.
type Package struct {
	Name string `json:"name"`
	// Version is what must be installed, and is kept from being upgraded; empty is
	// any version that is installed already, else the newest.
	Version string `json:"version,omitempty"`
	// Masked are units that the package brings and that must never run: they are
	// masked before it is installed, as some packages start them at once.
	Masked []string `json:"masked,omitempty"`
	// Restarts are units that run what is in the package.
	Restarts []string `json:"restarts,omitempty"`
}

// User is a user of the system, with a group of the same name and no login.
type User struct {
	Name string `json:"name"`
	Home string `json:"home,omitempty"`
	// Groups are further groups that it is in.
	Groups []string `json:"groups,omitempty"`
}

// Directory is a directory and its parents; what is in it is not looked at.
type Directory struct {
	Path  string      `json:"path"`
	Mode  fs.FileMode `json:"mode"`
	Owner string      `json:"owner"` // user:group
}

// Program is a file, or a tree of them, that comes from an artefact rather than
// from a package. A copy of what is installed is known by the artefact's identity,
// see [Program.Identity].
type Program struct {
	// Path is where it ends up: of a file if the artefact is one program, of a
	// directory if Tree says so.
	Path string `json:"path"`
	// Tree unpacks the whole archive into Path, without its top-level directory if
	// it has one only.
	Tree bool `json:"tree,omitempty"`
	// Member is the file to take out of an archive (.zip, .tar.gz, .tgz, .tar.xz);
	// empty where the artefact is the program itself.
	Member   string           `json:"member,omitempty"`
	Mode     fs.FileMode      `json:"mode"`
	Artefact cluster.Artefact `json:"artefact"`
	Restarts []string         `json:"restarts,omitempty"`
}

// Identity says which copy of the program is meant: two programs of one identity
// have the same content. The artefact's checksum must be known.
func (p Program) Identity() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%t", p.Artefact.SHA256, p.Member, p.Tree))
	return hex.EncodeToString(sum[:])
}

// Text is content that may hold secrets.
type Text = redact.Text

// File is a file with its whole content.
type File struct {
	Path  string      `json:"path"`
	Mode  fs.FileMode `json:"mode"`
	Owner string      `json:"owner"` // user:group
	// Content is what is in it, unless Secret has it.
	Content string `json:"content,omitempty"`
	// Secret is content that no plan and no log ever shows.
	Secret Text `json:"-"`
	// Once writes it only where it does not exist: the program that owns it changes
	// it (or removes it) afterwards.
	Once bool `json:"once,omitempty"`
	// OnlyWith is a directory: a Once file is written only if that is empty or does
	// not exist, as for what must happen at the first start of a server only.
	OnlyWith string `json:"only_with,omitempty"`
	// Same says whether content that is found means the same; nil compares bytes. It
	// is for programs that rewrite their own configuration.
	Same func(found, wanted string) bool `json:"-"`
	// Restarts and Reloads are units for which a change matters.
	Restarts []string `json:"restarts,omitempty"`
	Reloads  []string `json:"reloads,omitempty"`
	// Check is a command that must succeed before the file takes its place, run as
	// root on the machine; "%s" is a path that has the new content.
	Check string `json:"check,omitempty"`
	// Then runs after a change, as root: "sysctl --system".
	Then string `json:"then,omitempty"`
}

// Bytes is the content, secret or not.
func (f File) Bytes() string {
	if !f.Secret.IsEmpty() {
		return f.Secret.Reveal()
	}
	return f.Content
}

// State is what a unit should be doing.
type State string

const (
	// Running is enabled and active.
	Running State = "running"
	// Stopped is disabled and inactive.
	Stopped State = "stopped"
	// Masked is stopped, and cannot be started.
	Masked State = "masked"
)

// Unit is a unit of systemd.
type Unit struct {
	Name string `json:"name"` // "consul.service"
	// Content is the unit's file in /etc/systemd/system; empty where a package has it.
	Content string `json:"content,omitempty"`
	// DropIns are files in /etc/systemd/system/<unit>.d, by name.
	DropIns map[string]string `json:"drop_ins,omitempty"`
	State   State             `json:"state"`
	// NoBlock starts it without waiting until it is up: its readiness depends on
	// other machines.
	NoBlock bool `json:"no_block,omitempty"`
	// Quorum is a unit of which only one in a datacenter may be restarted at a time.
	Quorum bool `json:"quorum,omitempty"`
}

// Triggers are the units that restart, and those that reload, when anything of
// the part that matters to them changes.
func (p *Part) Triggers() (restarts, reloads []string) {
	for _, x := range p.Packages {
		restarts = append(restarts, x.Restarts...)
	}
	for _, x := range p.Programs {
		restarts = append(restarts, x.Restarts...)
	}
	for _, x := range p.Files {
		restarts = append(restarts, x.Restarts...)
		reloads = append(reloads, x.Reloads...)
	}
	slices.Sort(restarts)
	slices.Sort(reloads)
	return slices.Compact(restarts), slices.Compact(reloads)
}
