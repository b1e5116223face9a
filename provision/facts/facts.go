package facts

import (
	"io/fs"
	"net/netip"
	"time"
)

// Family is a family of distributions that are administered alike.
type Family string

// Families. Anything else is the name of the distribution.
const (
	Debian Family = "debian" // apt, dpkg
	RedHat Family = "redhat" // dnf, rpm
)

// Facts are what was found on one machine at one time.
type Facts struct {
	Node     string    `json:"node"`
	At       time.Time `json:"at"` // by the clock of who asked
	Hostname string    `json:"hostname"`
	System   System    `json:"system"`
	// Offset is how far the machine's clock is ahead of that of who asked, at most
	// half a round trip wrong.
	Offset time.Duration `json:"offset"`
	// Synchronized says whether something keeps the clock right; nil if unknown.
	Synchronized *bool `json:"synchronized,omitempty"`
	CPUs         int   `json:"cpus"`
	Memory       int64 `json:"memory"` // bytes
	// Addresses are those of all interfaces, by interface.
	Addresses map[string][]netip.Prefix `json:"addresses"`
	// Outward is the interface that the default route leads to; empty without one.
	Outward string `json:"outward,omitempty"`
	// Disks are the file systems that matter, by the path that was asked for.
	Disks map[string]Disk `json:"disks"`
	// Listeners are all sockets that listen.
	Listeners []Listener `json:"listeners"`
	// Cgroup is 1 or 2 (unified).
	Cgroup int `json:"cgroup"`
	// Docker is the engine that answers, if one does.
	Docker *Docker `json:"docker,omitempty"`
	// Resolver is how the machine resolves names.
	Resolver Resolver `json:"resolver"`
	// SELinux is "enforcing", "permissive", "disabled" or "".
	SELinux string `json:"selinux,omitempty"`
	// Root says whether root's rights were to be had; RootError why not.
	Root      bool   `json:"root"`
	RootError string `json:"root_error,omitempty"`
	// PackageLock is who holds the package manager's lock; empty if nobody.
	PackageLock string `json:"package_lock,omitempty"`

	Packages map[string]string `json:"packages"` // installed version, by name, of those asked for
	Held     []string          `json:"held,omitempty"`
	Users    map[string]User   `json:"users"`
	Files    map[string]File   `json:"files"` // that exist, of those asked for
	Units    map[string]Unit   `json:"units"` // of those asked for
	// Stamps are what apply noted about the machine: see [apply].
	Stamps map[string]string `json:"stamps"`
}

// System is the operating system.
type System struct {
	Family  Family `json:"family"`
	ID      string `json:"id"`      // os-release's: "debian"
	Version string `json:"version"` // os-release's VERSION_ID: "12"
	Code    string `json:"code"`    // os-release's VERSION_CODENAME: "bookworm"
	Name    string `json:"name"`    // os-release's PRETTY_NAME
	Kernel  string `json:"kernel"`
	Arch    string `json:"arch"` // Go's word: "amd64"
	Systemd int    `json:"systemd"`
}

// Disk is a file system.
type Disk struct {
	Free  int64 `json:"free"` // bytes
	Total int64 `json:"total"`
	// Inodes is how many files can still be made.
	Inodes int64 `json:"inodes"`
}

// Listener is a socket that listens.
type Listener struct {
	Network string         `json:"network"` // "tcp" or "udp"
	Address netip.AddrPort `json:"address"`
	// Process has the socket; empty if that cannot be seen.
	Process string `json:"process,omitempty"`
	PID     int    `json:"pid,omitempty"`
	// Unit is the unit of systemd that the process is in.
	Unit string `json:"unit,omitempty"`
}

// Docker is a Docker Engine.
type Docker struct {
	Version string `json:"version"`
	API     string `json:"api"`     // the newest it speaks: "1.41"
	MinAPI  string `json:"min_api"` // the oldest
}

// Resolver is how names are resolved.
type Resolver struct {
	// ResolvConf is what /etc/resolv.conf has; Link where it points to, "" for a file.
	ResolvConf string `json:"resolv_conf"`
	Link       string `json:"link,omitempty"`
	// Resolved says whether systemd-resolved runs.
	Resolved bool `json:"resolved"`
}

// User is a user of the system.
type User struct {
	UID    int      `json:"uid"`
	Home   string   `json:"home"`
	Groups []string `json:"groups"`
}

// File is a file or directory that exists.
type File struct {
	Directory bool        `json:"directory,omitempty"`
	Empty     bool        `json:"empty,omitempty"` // a directory with nothing in it
	Mode      fs.FileMode `json:"mode"`            // permission bits
	Owner     string      `json:"owner"`           // user:group
	Size      int64       `json:"size"`
	Modified  int64       `json:"modified"`         // seconds since 1970, by the machine's clock
	SHA256    string      `json:"sha256,omitempty"` // lower-case hex
	// Content is what is in it, of files whose content was asked for. It may be
	// secret: it is never encoded.
	Content string `json:"-"`
}

// Unit is a unit of systemd.
type Unit struct {
	Load    string `json:"load"`   // "loaded", "not-found", "masked"
	Active  string `json:"active"` // "active", "inactive", "failed", "activating"
	Sub     string `json:"sub"`
	Enabled string `json:"enabled"` // "enabled", "disabled", "static", "masked", ""
	MainPID int    `json:"main_pid,omitempty"`
	// Restarts is how often systemd restarted it by itself.
	Restarts int       `json:"restarts,omitempty"`
	Since    time.Time `json:"since,omitzero"` // active since, by the machine's clock
	// Stale says that its file changed since systemd read it.
	Stale bool `json:"stale,omitempty"`
}
