package facts

import (
	"bufio"
	"bytes"
	"encoding/base64"
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

// ErrTruncated is an answer that ends too early, or is none.
var ErrTruncated = errors.New("the answer is not complete")

const firstLine = "mi-lb-facts 1"

// records are what a machine answered: texts by word and name.
type records map[string]map[string]string

func (r records) get(word string) string { return r[word][""] }

// line is the first line of a record.
func (r records) line(word string) string {
	first, _, _ := strings.Cut(r.get(word), "\n")
	return strings.TrimSpace(first)
}

// read takes an answer apart. Lines before the first are what login scripts say.
func read(answer []byte) (records, error) {
	all := records{}
	scanner := bufio.NewScanner(bytes.NewReader(answer))
	scanner.Buffer(nil, mostAnswer)
	begun := false
	for scanner.Scan() {
		line := scanner.Text()
		switch {
		case !begun:
			begun = line == firstLine
			continue
		case line == "end":
			return all, nil
		}
		word, rest, _ := strings.Cut(line, " ")
		name, text, ok := strings.Cut(rest, " ")
		if !ok || word == "" {
			return nil, fmt.Errorf("%w: a line of it cannot be understood", ErrTruncated)
		}
		decodedName, err := base64.StdEncoding.DecodeString(name)
		if err != nil {
			return nil, fmt.Errorf("%w: a name in it cannot be understood", ErrTruncated)
		}
		decoded, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %s cannot be understood", ErrTruncated, word)
		}
		if all[word] == nil {
			all[word] = map[string]string{}
		}
		all[word][string(decodedName)] = string(decoded)
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return nil, ErrTruncated
}

// parse is what an answer means. middle is when the machine said what time it is,
// by our clock.
func parse(answer []byte, ask Ask, middle time.Time) (*Facts, error) {
	r, err := read(answer)
	if err != nil {
		return nil, err
	}
	f := &Facts{
		Hostname: r.line("hostname"), System: system(r), SELinux: strings.ToLower(r.line("selinux")), Root: r.line("uid") == "0",
		Packages: map[string]string{}, Users: map[string]User{}, Files: map[string]File{}, Units: map[string]Unit{}, Stamps: map[string]string{},
		Disks: map[string]Disk{}, Addresses: addresses(r), Outward: outward(r.get("route")),
	}
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
	if fields := strings.Fields(r.get("memory")); len(fields) >= 2 {
		f.Memory = kibibytes(fields[1])
	}
	switch kind := r.line("cgroup"); {
	case strings.HasPrefix(kind, "cgroup2"):
		f.Cgroup = 2
	case kind != "":
		f.Cgroup = 1
	}
	f.Resolver = Resolver{ResolvConf: r.get("resolv.conf"), Link: r.line("resolv.conf-link")}
	names := processNames(r.get("comm"))
	for _, name := range names {
		f.Resolver.Resolved = f.Resolver.Resolved || name == "systemd-resolve" // the kernel keeps 15 letters
	}
	f.Listeners = listeners(r, names)
	f.Docker = docker(r.get("docker"))
	f.PackageLock = lockHolders(r.get("locks"), names)
	packages(r, f)
	for name, text := range r["user"] {
		if u, ok := user(text); ok {
			f.Users[name] = u
		}
	}
	f.Disks = disks(ask.Disks, r.get("disks"))
	files(r, f)
	units(r.get("units"), f)
	for line := range strings.Lines(r.get("stamps")) {
		if name, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok && name != "" && name[0] != '.' && name != "*" {
			f.Stamps[name] = text
		}
	}
	return f, nil
}

// system is what /etc/os-release, uname and systemctl say.
func system(r records) System {
	values := map[string]string{}
	for line := range strings.Lines(r.get("os-release")) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[key] = strings.Trim(value, `"'`)
		}
	}
	s := System{ID: values["ID"], Version: values["VERSION_ID"], Code: values["VERSION_CODENAME"], Name: values["PRETTY_NAME"], Kernel: r.line("kernel"), Arch: r.line("arch")}
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
	if fields := strings.Fields(r.get("systemd")); len(fields) >= 2 && fields[0] == "systemd" {
		digits := regexp.MustCompile(`^[0-9]+`).FindString(fields[1])
		s.Systemd, _ = strconv.Atoi(digits)
	}
	return s
}

// addresses are what "ip -o addr" lists; without that program, the local addresses
// in the kernel's routing table, which names no interfaces.
func addresses(r records) map[string][]netip.Prefix {
	all := map[string][]netip.Prefix{}
	for line := range strings.Lines(r.get("addresses")) {
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
	for line := range strings.Lines(r.get("routes")) {
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

// disks are what df says of blocks and of inodes, a line for each path. Of a path
// that df says nothing of, nothing is known.
func disks(paths []string, text string) map[string]Disk {
	all := map[string]Disk{}
	blocks, inodes, _ := strings.Cut(text, "\ninodes\n")
	free := rows(inodes)
	for i, row := range rows(blocks) {
		if len(rows(blocks)) != len(paths) {
			break
		}
		d := Disk{Total: kibibytes(row[0]), Free: kibibytes(row[2])}
		if len(free) == len(paths) {
			d.Inodes, _ = strconv.ParseInt(free[i][2], 10, 64)
		}
		all[paths[i]] = d
	}
	return all
}

// rows are the numbers in df's lines: total, used, available. Names of file systems
// may have spaces, and are left out.
func rows(text string) [][]string {
	var all [][]string
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) < 6 || fields[0] == "Filesystem" {
			continue
		}
		// The mount point comes last, and may have spaces, too: the column before it
		// ends with a percent sign, or is a dash.
		for i := 4; i < len(fields); i++ {
			if strings.HasSuffix(fields[i], "%") || fields[i] == "-" {
				all = append(all, fields[i-3:i])
				break
			}
		}
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
	for line := range strings.Lines(r.get("dpkg")) {
		fields := strings.Fields(line)
		if len(fields) != 3 || len(fields[2]) < 2 || fields[2][1] != 'i' {
			continue
		}
		f.Packages[fields[0]] = fields[1]
		if fields[2][0] == 'h' && !slices.Contains(f.Held, fields[0]) {
			f.Held = append(f.Held, fields[0])
		}
	}
	for line := range strings.Lines(r.get("rpm")) {
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "mi-lb" {
			f.Packages[fields[1]] = fields[2]
		}
	}
	for line := range strings.Lines(r.get("versionlock")) {
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

// user is a line of passwd, and one with groups.
func user(text string) (User, bool) {
	passwd, groups, _ := strings.Cut(text, "\n")
	fields := strings.Split(passwd, ":")
	if len(fields) < 7 {
		return User{}, false
	}
	uid, err := strconv.Atoi(fields[2])
	if err != nil {
		return User{}, false
	}
	u := User{UID: uid, Home: fields[5], Groups: strings.Fields(groups)}
	slices.Sort(u.Groups)
	return u, true
}

// files are what stat, sha256sum and find say of files.
func files(r records, f *Facts) {
	const directory, regular, kind = 0o040000, 0o100000, 0o170000
	for line := range strings.Lines(r.get("stat")) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 5)
		if len(fields) != 5 || !path.IsAbs(fields[4]) {
			continue
		}
		mode, err := strconv.ParseUint(fields[0], 16, 32)
		if err != nil {
			continue
		}
		file := File{Directory: mode&kind == directory, Mode: fileMode(uint32(mode)), Owner: fields[1]}
		file.Size, _ = strconv.ParseInt(fields[2], 10, 64)
		file.Modified, _ = strconv.ParseInt(fields[3], 10, 64)
		if mode&kind != directory && mode&kind != regular {
			file.Mode |= fs.ModeIrregular
		}
		f.Files[fields[4]] = file
	}
	change := func(name string, how func(*File)) {
		if file, ok := f.Files[name]; ok {
			how(&file)
			f.Files[name] = file
		}
	}
	sum := regexp.MustCompile(`^([0-9a-f]{64}) [ *](/.*)$`)
	for line := range strings.Lines(r.get("sha256")) {
		if m := sum.FindStringSubmatch(strings.TrimSuffix(line, "\n")); m != nil {
			change(m[2], func(file *File) { file.SHA256 = m[1] })
		}
	}
	for line := range strings.Lines(r.get("empty")) {
		change(strings.TrimSuffix(line, "\n"), func(file *File) { file.Empty = file.Directory })
	}
	for name, text := range r["content"] {
		change(name, func(file *File) { file.Content = text })
	}
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
