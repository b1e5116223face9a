package runtime

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// Administrative states of a server, as `set server … state` takes them.
const (
	Ready = "ready"
	Drain = "drain"
	Maint = "maint"
)

// Server is a server as it runs.
type Server struct {
	Backend string
	Name    string
	// Address is not valid for a server that has none (yet).
	Address netip.AddrPort
	// State is the administrative one: Ready, Drain or Maint.
	State string
	// Up says that checks, or the lack of them, would let it serve.
	Up bool
	// Weight is the one that was set, 0 to 256, before any slow start.
	Weight int
}

// Bits of srv_admin_state that count; see enum srv_admin in HAProxy's
// server-t.h. 0x04 only tells what the configuration said.
const (
	adminMaint = 0x01 | 0x02 | 0x20 | 0x40
	adminDrain = 0x08 | 0x10
)

// Servers is the state of every server of the process, in HAProxy's order.
func (c *Client) Servers(ctx context.Context) ([]Server, error) {
	text, err := c.Read(ctx, "show servers state")
	if err != nil {
		return nil, err
	}
	return ParseServers(text)
}

// ParseServers reads the answer to `show servers state`. The columns are found by
// their names.
func ParseServers(text string) ([]Server, error) {
	format, rest, _ := strings.Cut(text, "\n")
	if strings.TrimSpace(format) != "1" {
		return nil, fmt.Errorf("show servers state: format %.20q, only 1 is known", format)
	}
	header, rest, _ := strings.Cut(rest, "\n")
	names := strings.Fields(strings.TrimPrefix(header, "#"))
	column := func(name string) int {
		for i, n := range names {
			if n == name {
				return i
			}
		}
		return -1
	}
	at := [...]int{column("be_name"), column("srv_name"), column("srv_addr"), column("srv_port"), column("srv_op_state"), column("srv_admin_state"), column("srv_uweight")}
	for _, i := range at {
		if i < 0 {
			return nil, fmt.Errorf("show servers state: columns %.300q lack one that is needed", header)
		}
	}
	var servers []Server
	fields := make([]string, 0, len(names)+1)
	for line := range strings.Lines(rest) {
		if line = strings.TrimRight(line, "\r\n"); line == "" {
			continue
		}
		fields = fields[:0]
		for f := range strings.SplitSeq(line, " ") {
			fields = append(fields, f)
		}
		if len(fields) < len(names) {
			return nil, fmt.Errorf("show servers state: %d of %d columns in %.300q", len(fields), len(names), line)
		}
		s, err := parseServer(fields[at[0]], fields[at[1]], fields[at[2]], fields[at[3]], fields[at[4]], fields[at[5]], fields[at[6]])
		if err != nil {
			return nil, fmt.Errorf("show servers state: %.300q: %w", line, err)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func parseServer(backend, name, addr, port, op, admin, weight string) (Server, error) {
	// The answer is a large text that must not be kept for the names in it.
	s := Server{Backend: strings.Clone(backend), Name: strings.Clone(name), State: Ready, Up: op != "0"}
	if ip, err := netip.ParseAddr(addr); err == nil {
		p, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return Server{}, fmt.Errorf("port: %w", err)
		}
		s.Address = netip.AddrPortFrom(ip.WithZone(""), uint16(p))
	}
	bits, err := strconv.ParseUint(admin, 10, 32)
	if err != nil {
		return Server{}, fmt.Errorf("admin state: %w", err)
	}
	switch {
	case bits&adminMaint != 0:
		s.State = Maint
	case bits&adminDrain != 0:
		s.State = Drain
	}
	if s.Weight, err = strconv.Atoi(weight); err != nil {
		return Server{}, fmt.Errorf("weight: %w", err)
	}
	return s, nil
}
