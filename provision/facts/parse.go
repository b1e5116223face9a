package facts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrTruncated is an answer that ends too early, or is none.
	ErrTruncated = errors.New("the answer is not complete")
	// ErrChanging is a file that was written while it was read.
	ErrChanging = errors.New("files change while they are read")
)

const firstWord = "mi-lb-facts "

// records are what a machine answered: texts by word.
type records map[string]string

// line is the first line of a record.
func (r records) line(word string) string {
	first, _, _ := strings.Cut(r[word], "\n")
	return strings.TrimSpace(first)
}

// read takes an answer apart. What comes before its first line is what login scripts
// say.
func read(answer []byte, mark string) (records, error) {
	_, text, begun := strings.Cut("\n"+string(answer), "\n"+firstWord+mark+"\n")
	if !begun {
		return nil, ErrTruncated
	}
	all := records{}
	_, rest, more := strings.Cut("\n"+text, "\n"+mark+" ")
	for more {
		var section string
		section, rest, more = strings.Cut(rest, "\n"+mark+" ")
		word, text, _ := strings.Cut(section, "\n")
		if word == "end" {
			return all, nil
		}
		all[word] = text
	}
	return nil, ErrTruncated
}

// needed are records that every machine has.
var needed = []string{"now", "uname", "memory", "status", "sockets", "comm", "owners"}

// parse is what an answer means. middle is when the machine said what time it is,
// by our clock.
func parse(answer []byte, ask Ask, mark string, middle time.Time) (*Facts, error) {
	r, err := read(answer, mark)
	if err != nil {
		return nil, err
	}
	if missing := strings.Fields(r["missing"]); len(missing) > 0 {
		return nil, fmt.Errorf("the machine lacks programs that belong to any system: %s", strings.Join(missing, ", "))
	}
	for _, word := range needed {
		if _, ok := r[word]; !ok {
			return nil, fmt.Errorf("%w: it has nothing about %s", ErrTruncated, word)
		}
	}
	f := &Facts{
		SELinux: r.line("selinux"), Root: isRoot(r["status"]),
		Packages: map[string]string{}, Users: map[string]User{}, Files: map[string]File{}, Units: map[string]Unit{}, Stamps: map[string]string{},
		Addresses: addresses(r), Outward: outward(r["route"]),
	}
	packages(r, f)
	f.System = system(r, f.Packages["systemd"])
	if !slices.Contains(ask.Packages, "systemd") {
		delete(f.Packages, "systemd")
		f.Held = slices.DeleteFunc(f.Held, func(name string) bool { return name == "systemd" })
	}
	f.Hostname, _, _ = strings.Cut(r.line("uname"), " ")
	if seconds, err := strconv.ParseFloat(r.line("now"), 64); err == nil && seconds > 0 && seconds < math.MaxInt32*4 {
		f.Offset = time.UnixMicro(int64(seconds * 1e6)).Sub(middle)
	}
	switch r.line("synchronized") {
	case "yes":
		f.Synchronized = new(true)
	case "no":
		f.Synchronized = new(false)
	}
	f.CPUs, _ = strconv.Atoi(r.line("cpus"))
	if fields := strings.Fields(r["memory"]); len(fields) >= 2 {
		f.Memory = kibibytes(fields[1])
	}
	f.Cgroup, _ = strconv.Atoi(r.line("cgroup"))
	f.Resolver = Resolver{ResolvConf: r["resolv.conf"], Link: r.line("resolv.conf-link")}
	names := processNames(r["comm"])
	for _, name := range names {
		f.Resolver.Resolved = f.Resolver.Resolved || name == "systemd-resolve" // the kernel keeps 15 letters
	}
	f.Listeners = listeners(r, names)
	f.Docker = docker(r["docker"])
	f.PackageLock = lockHolders(r["locks"], names)
	users(r, f)
	f.Disks = disks(ask.Disks, r["disks"])
	if err := files(r, f); err != nil {
		return nil, err
	}
	units(r["units"], f)
	for line := range strings.Lines(r["stamps"]) {
		if name, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && name != "" {
			f.Stamps[name] = text
		}
	}
	return f, nil
}

// isRoot says whether a process with that /proc/PID/status is root's.
func isRoot(status string) bool {
	for line := range strings.Lines(status) {
		if fields := strings.Fields(line); len(fields) >= 3 && fields[0] == "Uid:" {
			return fields[2] == "0" // the effective one
		}
	}
	return false
}

var number = regexp.MustCompile(`^[0-9]+`)

// system is what /etc/os-release and uname say, and which systemd there is, by its
// package or by itself.
func system(r records, systemd string) System {
	values := map[string]string{}
	for line := range strings.Lines(r["os-release"]) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	s := System{ID: values["ID"], Version: values["VERSION_ID"], Code: values["VERSION_CODENAME"], Name: values["PRETTY_NAME"]}
	if fields := strings.Fields(r.line("uname")); len(fields) == 3 {
		s.Kernel, s.Arch = fields[1], fields[2]
	}
	switch s.Arch {
	case "x86_64":
		s.Arch = "amd64"
	case "aarch64":
		s.Arch = "arm64"
	}
	s.Family = Family(s.ID)
	for _, id := range append([]string{s.ID}, strings.Fields(values["ID_LIKE"])...) {
		switch id {
		case "debian", "ubuntu":
			s.Family = Debian
		case "rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn":
			s.Family = RedHat
		default:
			continue
		}
		break
	}
	if fields := strings.Fields(r["systemd"]); systemd == "" && len(fields) >= 2 && fields[0] == "systemd" {
		systemd = fields[1]
	}
	s.Systemd, _ = strconv.Atoi(number.FindString(systemd))
	return s
}

// addresses are what "ip -o addr" lists; without that program, the local addresses
// in the kernel's routing table, which names no interfaces.
func addresses(r records) map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	for line := range strings.Lines(r["addresses"]) {
		fields := strings.Fields(line)
		if len(fields) < 4 || fields[2] != "inet" && fields[2] != "inet6" {
			continue
		}
		name, _, _ := strings.Cut(fields[1], "@")
		prefix, err := netip.ParsePrefix(fields[3])
		if err != nil { // a peer has no length
			if a, err := netip.ParseAddr(fields[3]); err == nil {
				prefix = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if prefix.IsValid() {
			all[name] = append(all[name], prefix)
		}
	}
	last := ""
	for line := range strings.Lines(r["addresses"]) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 2 && fields[0] == "|--":
			last = fields[1]
		case len(fields) >= 3 && fields[0] == "/32" && fields[2] == "LOCAL":
			if a, err := netip.ParseAddr(last); err == nil {
				p := netip.PrefixFrom(a, 32)
				if !slices.Contains(all[""], p) {
					all[""] = append(all[""], p)
				}
			}
		}
	}
	return all
}

// outward is the interface of the default route with the lowest metric.
func outward(table string) string {
	name, best := "", math.MaxInt
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 8 || fields[1] != "00000000" || fields[7] != "00000000" {
			continue
		}
		if metric, err := strconv.Atoi(fields[6]); err == nil && metric < best {
			name, best = fields[0], metric
		}
	}
	return name
}

func kibibytes(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/1024 {
		return 0
	}
	return n * 1024
}

// disks are what stat says of file systems, a line for each path: blocks, those that
// are free, how large they are, and free inodes. Where it does not say that, nothing
// is known.
func disks(paths []string, text string) map[string]Disk {
	all := map[string]Disk{}
	lines := slices.Collect(strings.Lines(text))
	if len(lines) != len(paths) {
		return all
	}
	for i, line := range lines {
		var blocks, free, size, inodes int64
		if n, err := fmt.Sscan(line, &blocks, &free, &size, &inodes); n != 4 || err != nil || size <= 0 || min(blocks, free) < 0 || max(blocks, free) > math.MaxInt64/size {
			continue
		}
		all[paths[i]] = Disk{Total: blocks * size, Free: free * size, Inodes: inodes}
	}
	return all
}

func docker(text string) *Docker {
	if text == "" {
		return nil
	}
	var server struct{ Version, APIVersion, ApiVersion, MinAPIVersion string }
	if err := json.Unmarshal([]byte(text), &server); err != nil || server.Version == "" {
		return nil
	}
	api := server.APIVersion
	if api == "" {
		api = server.ApiVersion
	}
	return &Docker{Version: server.Version, API: api, MinAPI: server.MinAPIVersion}
}

// packages are what dpkg-query or rpm list.
func packages(r records, f *Facts) {
	for line := range strings.Lines(r["dpkg"]) {
		fields := strings.Fields(line)
		if len(fields) != 3 || len(fields[2]) < 2 || fields[2][1] != 'i' {
			continue
		}
		f.Packages[fields[0]] = fields[1]
		if fields[2][0] == 'h' && !slices.Contains(f.Held, fields[0]) {
			f.Held = append(f.Held, fields[0])
		}
	}
	for line := range strings.Lines(r["rpm"]) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "mi-lb" {
			f.Packages[fields[1]] = fields[2]
		}
	}
	for line := range strings.Lines(r["versionlock"]) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") || strings.HasPrefix(line, "!") {
			continue
		}
		for name := range f.Packages {
			if strings.HasPrefix(line, name+"-") && !slices.Contains(f.Held, name) {
				f.Held = append(f.Held, name)
			}
		}
	}
	slices.Sort(f.Held)
}

// users are what getent and groups list.
func users(r records, f *Facts) {
	groups := map[string][]string{}
	for line := range strings.Lines(r["groups"]) {
		name, list, _ := strings.Cut(line, " : ")
		groups[name] = strings.Fields(list)
	}
	for line := range strings.Lines(r["passwd"]) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(fields) < 7 {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		if err != nil {
			continue
		}
		u := User{UID: uid, Home: fields[5], Groups: groups[fields[0]]}
		slices.Sort(u.Groups)
		f.Users[fields[0]] = u
	}
}

var sum = regexp.MustCompile(`^([0-9a-f]{64}) [ *](/.*)$`)

// files are what find and sha256sum say of files, and what is in them.
func files(r records, f *Facts) error {
	var empty []string
	for line := range strings.Lines(r["stat"]) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "empty "); ok {
			empty = append(empty, name)
			continue
		}
		line, name, _ := strings.Cut(line, "\t") // names of groups may have spaces
		fields := strings.SplitN(line, " ", 5)
		if len(fields) != 5 || !path.IsAbs(name) {
			continue
		}
		mode, err := strconv.ParseUint(fields[1], 8, 32)
		if err != nil || fields[0] == "l" { // a link to nothing
			continue
		}
		file := File{Directory: fields[0] == "d", Mode: fileMode(uint32(mode)), Owner: fields[4]}
		file.Size, _ = strconv.ParseInt(fields[2], 10, 64)
		seconds, _, _ := strings.Cut(fields[3], ".")
		file.Modified, _ = strconv.ParseInt(seconds, 10, 64)
		if fields[0] != "d" && fields[0] != "f" {
			file.Mode |= fs.ModeIrregular
		}
		f.Files[name] = file
	}
	change := func(name string, how func(*File)) {
		if file, ok := f.Files[name]; ok {
			how(&file)
			f.Files[name] = file
		}
	}
	for _, name := range empty {
		change(name, func(file *File) { file.Empty = file.Directory })
	}
	for line := range strings.Lines(r["sha256"]) {
		if m := sum.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			change(m[2], func(file *File) { file.SHA256 = m[1] })
		}
	}
	return contents(r["contents"], change)
}

// contents are lines that say how long each file is, and then all files.
func contents(text string, change func(string, func(*File))) error {
	type piece struct {
		name string
		size int
	}
	var pieces []piece
	for total := 0; text != "" && total != len(text); {
		line, rest, _ := strings.Cut(text, "\n")
		number, name, ok := strings.Cut(line, " ")
		size, err := strconv.Atoi(number)
		if !ok || err != nil || size < 0 || size > len(rest) {
			return fmt.Errorf("%w: they are not as long as they were", ErrChanging)
		}
		pieces = append(pieces, piece{name, size})
		total += size
		text = rest
	}
	var err error
	for _, p := range pieces {
		content := text[:p.size]
		text = text[p.size:]
		change(p.name, func(file *File) {
			if hash := sha256.Sum256([]byte(content)); file.SHA256 != hex.EncodeToString(hash[:]) {
				err = fmt.Errorf("%w: %s", ErrChanging, p.name)
			}
			file.Content = content
		})
	}
	return err
}

// fileMode are the permission bits, with those for setuid, setgid and sticky.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// units are the blocks of systemctl show.
func units(text string, f *Facts) {
	for block := range strings.SplitSeq(text, "\n\n") {
		values := map[string]string{}
		for line := range strings.Lines(block) {
			if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
				values[key] = value
			}
		}
		if values["Id"] == "" {
			continue
		}
		u := Unit{Load: values["LoadState"], Active: values["ActiveState"], Sub: values["SubState"], Enabled: values["UnitFileState"], Stale: values["NeedDaemonReload"] == "yes"}
		u.MainPID, _ = strconv.Atoi(values["MainPID"])
		u.Restarts, _ = strconv.Atoi(values["NRestarts"])
		if t, err := time.Parse("Mon 2006-01-02 15:04:05 MST", values["ActiveEnterTimestamp"]); err == nil {
			u.Since = t
		}
		f.Units[values["Id"]] = u
	}
}
