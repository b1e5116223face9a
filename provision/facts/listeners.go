package facts

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// processNames are the names of processes by id, from lines of both.
func processNames(text string) map[int]string {
	names := map[int]string{}
	for line := range strings.Lines(text) {
		id, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if pid, err := strconv.Atoi(id); ok && err == nil {
			names[pid] = name
		}
	}
	return names
}

// processUnits are the units of systemd that processes are in, from lines of ids and
// lines of /proc/PID/cgroup.
func processUnits(text string) map[int]string {
	units := map[int]string{}
	for line := range strings.Lines(text) {
		id, group, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		fields := strings.SplitN(group, ":", 3)
		pid, err := strconv.Atoi(id)
		if err != nil || len(fields) != 3 {
			continue
		}
		for part := range strings.SplitSeq(fields[2], "/") {
			if strings.HasSuffix(part, ".service") || strings.HasSuffix(part, ".scope") || strings.HasSuffix(part, ".socket") {
				units[pid] = part
			}
		}
	}
	return units
}

// listeners are the sockets of /proc/net that listen, with who has them.
func listeners(r records, names map[int]string) []Listener {
	owners := map[string]int{}
	for line := range strings.Lines(r["owners"]) {
		if fields := strings.Fields(line); len(fields) == 2 {
			if pid, err := strconv.Atoi(fields[1]); err == nil {
				owners[fields[0]] = pid
			}
		}
	}
	units := processUnits(r["cgroups"])
	all := []Listener{}
	for line := range strings.Lines(r["sockets"]) {
		fields := strings.Fields(line)
		if len(fields) != 4 {
			continue
		}
		local, err := procAddress(fields[1])
		if err != nil {
			continue
		}
		if remote, err := procAddress(fields[2]); err != nil || remote.Port() != 0 {
			continue // a UDP socket that is connected
		}
		l := Listener{Network: strings.TrimSuffix(fields[0], "6"), Address: local}
		if pid, ok := owners[fields[3]]; ok {
			l.PID, l.Process, l.Unit = pid, names[pid], units[pid]
		}
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Listener) int {
		return cmp.Or(cmp.Compare(a.Network, b.Network), cmp.Compare(a.Address.Port(), b.Address.Port()), a.Address.Addr().Compare(b.Address.Addr()), cmp.Compare(a.PID, b.PID))
	})
	return all
}

// procAddress reads an address of /proc/net: 32-bit words in the machine's byte
// order, which is little-endian on all that mi-lb runs on.
func procAddress(s string) (netip.AddrPort, error) {
	address, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(address)
	if !ok || err != nil || len(raw) != 4 && len(raw) != 16 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", s)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no port", port)
	}
	for i := 0; i < len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, _ := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(a.Unmap(), uint16(number)), nil
}

// lockHolders says who has a lock of the package manager open: "apt-get (pid 7)".
func lockHolders(text string, names map[int]string) string {
	var holders []string
	for line := range strings.Lines(text) {
		directory, _, ok := strings.Cut(strings.TrimSpace(line), " ")
		parts := strings.Split(directory, "/")
		if !ok || len(parts) != 4 {
			continue
		}
		pid, err := strconv.Atoi(parts[2])
		if err != nil {
			continue
		}
		holder := fmt.Sprintf("%s (pid %d)", cmp.Or(names[pid], "a process"), pid)
		if !slices.Contains(holders, holder) {
			holders = append(holders, holder)
		}
	}
	slices.Sort(holders)
	return strings.Join(holders, ", ")
}
