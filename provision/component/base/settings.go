package base

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mi-lb/mi-lb/provision/component/vars"
	"github.com/mi-lb/mi-lb/provision/desired"
	"github.com/mi-lb/mi-lb/provision/facts"
)

type settings struct {
	packages    []string
	sysctl      map[string]string
	nofile      int
	journal     string
	logDays     int
	time        string
	timeServers []string
}

var (
	packageName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.+_-]*$`)
	sysctlName  = regexp.MustCompile(`^[a-z0-9_][a-zA-Z0-9_./-]*$`)
	sysctlValue = regexp.MustCompile(`^[a-zA-Z0-9 .,:_/|%@-]+$`)
	journalSize = regexp.MustCompile(`[0-9]+[KMGT]?`)
	hostName    = regexp.MustCompile(`^[a-zA-Z0-9:][a-zA-Z0-9.:-]*$`)
)

func read(r *vars.Reader) settings {
	s := settings{
		packages:    r.List("base_packages", nil),
		sysctl:      maps.Clone(kernel),
		nofile:      r.Int("base_nofile", 65536, 1024, 1<<30),
		journal:     r.Matching("base_journal_size", "1G", journalSize, `a size such as "500M"`),
		logDays:     r.Int("base_log_days", 7, 1, 3650),
		time:        r.OneOf("base_time", "auto", "auto", "chrony", "none"),
		timeServers: r.List("base_time_servers", nil),
	}
	for _, name := range s.packages {
		if !packageName.MatchString(name) {
			r.Refuse("base_packages", "has %q, which is no name of a package", name)
		}
	}
	for key, value := range r.Map("base_sysctl") {
		if !sysctlName.MatchString(key) || !sysctlValue.MatchString(value) {
			r.Refuse("base_sysctl", "has %s = %s, which is no setting of the kernel", key, value)
			continue
		}
		s.sysctl[strings.ReplaceAll(key, "/", ".")] = value
	}
	for _, server := range s.timeServers {
		if !hostName.MatchString(server) {
			r.Refuse("base_time_servers", "has %q, which is neither a name nor an address", server)
		}
	}
	return s
}

// kernel is what the platform's programs want of the kernel.
var kernel = map[string]string{
	// HAProxy, Consul and Marathon accept many connections at once.
	"net.core.somaxconn":           "16384",
	"net.ipv4.tcp_max_syn_backlog": "16384",
	// Ports for connections begin above those of Marathon's services (10000 to 20000)
	// and of Mesos's tasks (31000 to 32000), or one takes the other's.
	"net.ipv4.ip_local_port_range": "32768 60999",
	// Containers are reached through the machine.
	"net.ipv4.ip_forward": "1",
	// Each container watches files; the kernel's default is for one desktop.
	"fs.inotify.max_user_instances": "8192",
	"fs.inotify.max_user_watches":   "524288",
	// ZooKeeper and Consul miss their heartbeats while they wait for swap.
	"vm.swappiness":    "1",
	"vm.max_map_count": "262144",
}

func sysctl(s settings) string {
	var b strings.Builder
	b.WriteString("# Written by mi-lb; see the variable base_sysctl.\n")
	for _, key := range slices.Sorted(maps.Keys(s.sysctl)) {
		fmt.Fprintf(&b, "%s = %s\n", key, s.sysctl[key])
	}
	return b.String()
}

func limits(s settings) string {
	var b strings.Builder
	b.WriteString("# Written by mi-lb; see the variable base_nofile. Units have limits of their own.\n")
	for _, who := range []string{"*", "root"} {
		fmt.Fprintf(&b, "%s soft nofile %d\n%s hard nofile %d\n", who, s.nofile, who, s.nofile)
	}
	return b.String()
}

func journald(s settings) string {
	return "# Written by mi-lb; see the variable base_journal_size.\n[Journal]\nStorage=persistent\nSystemMaxUse=" + s.journal + "\n"
}

func logrotate(s settings) string {
	return fmt.Sprintf(`# Written by mi-lb; see the variable base_log_days. What units print is the journal's.
/var/log/consul/*.log /var/log/marathon/*.log /var/log/mesos/*.log /var/log/mi-lb/*.log /var/log/zookeeper/*.log {
    daily
    rotate %d
    maxsize 500M
    compress
    delaycompress
    missingok
    notifempty
    copytruncate
}
`, s.logDays)
}

// packages are what the components take for granted.
func packages(family facts.Family, s settings) []desired.Package {
	names := []string{"ca-certificates", "curl", "iproute2", "logrotate", "procps", "tar", "unzip", "xz-utils"}
	if family == facts.RedHat {
		// curl is left out: it is there, under one of two names that exclude each other.
		names = []string{"ca-certificates", "iproute", "logrotate", "procps-ng", "tar", "unzip", "xz"}
	}
	names = append(names, s.packages...)
	slices.Sort(names)
	var all []desired.Package
	for _, name := range slices.Compact(names) {
		all = append(all, desired.Package{Name: name})
	}
	return all
}

// keepTime adds what keeps the clock right, unless something does.
func (s settings) keepTime(f *facts.Facts, part *desired.Part) {
	switch {
	case s.time == "none":
		return
	case s.time == "auto" && len(s.timeServers) == 0 && (f.Synchronized == nil || *f.Synchronized || keepsTime(f)):
		return
	}
	unit, file, drift := "chrony.service", "/etc/chrony/chrony.conf", "/var/lib/chrony/chrony.drift"
	if f.System.Family == facts.RedHat {
		unit, file, drift = "chronyd.service", "/etc/chrony.conf", "/var/lib/chrony/drift"
	}
	part.Packages = append(part.Packages, desired.Package{Name: "chrony"})
	part.Units = append(part.Units, desired.Unit{Name: unit, State: desired.Running})
	if len(s.timeServers) == 0 {
		return
	}
	var b strings.Builder
	b.WriteString("# Written by mi-lb; see the variable base_time_servers.\n")
	for _, server := range s.timeServers {
		fmt.Fprintf(&b, "server %s iburst\n", server)
	}
	fmt.Fprintf(&b, "driftfile %s\nmakestep 1.0 3\nrtcsync\nleapsectz right/UTC\nlogdir /var/log/chrony\n", drift)
	part.Files = append(part.Files, desired.File{Path: file, Mode: 0o644, Owner: "root:root", Content: b.String(), Restarts: []string{unit}})
}

// keepsTime says whether a program is seen that keeps the clock right, and has not
// got there yet.
func keepsTime(f *facts.Facts) bool {
	return slices.ContainsFunc(f.Listeners, func(l facts.Listener) bool {
		return l.Network == "udp" && (l.Process == "ntpd" || l.Process == "chronyd" && l.Unit != "chrony.service" && l.Unit != "chronyd.service")
	})
}
