package runtime

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Stat is a row of statistics: a frontend, a backend, or a server of a backend.
type Stat struct {
	// Proxy is the frontend or backend; Server is empty but for a server's row.
	Proxy  string
	Server string
	// Kind is HAProxy's: 0 frontend, 1 backend, 2 server, 3 listener.
	Kind int
	// Status is HAProxy's: "UP", "DOWN", "MAINT", "DRAIN", "no check", "OPEN" …
	Status string
	// Sessions are the current ones, Queued the requests that wait.
	Sessions int64
	Queued   int64
	// Total counts sessions, Errors failed connections to servers.
	Total  int64
	Errors int64
}

// Stats are the rows of all proxies. It is the dearest of the reads: 49 ms at
// 10,000 servers on the machine it was measured on, `show servers state` 9 ms.
func (c *Client) Stats(ctx context.Context) ([]Stat, error) {
	text, err := c.Read(ctx, "show stat")
	if err != nil {
		return nil, err
	}
	return ParseStats(text)
}

// BackendStats are the rows of one backend and its servers.
func (c *Client) BackendStats(ctx context.Context, backend string) ([]Stat, error) {
	// 6 is backend (2) and servers (4); -1 is any of that backend.
	cmd, err := Command("show stat", backend, "6", "-1")
	if err != nil {
		return nil, err
	}
	text, err := c.Read(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return ParseStats(text)
}

// ParseStats reads the CSV of `show stat`. The columns are found by their names.
func ParseStats(text string) ([]Stat, error) {
	text, ok := strings.CutPrefix(text, "# ")
	if !ok {
		return nil, errors.New("show stat: no header")
	}
	rows := csv.NewReader(strings.NewReader(text))
	rows.ReuseRecord = true
	rows.FieldsPerRecord = -1
	header, err := rows.Read()
	if err != nil {
		return nil, fmt.Errorf("show stat: header: %w", err)
	}
	column := map[string]int{}
	for i, name := range header {
		column[name] = i
	}
	for _, name := range []string{"pxname", "svname", "type", "status", "scur", "qcur", "stot", "econ"} {
		if _, ok := column[name]; !ok {
			return nil, fmt.Errorf("show stat: no column %s", name)
		}
	}
	var stats []Stat
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			return stats, nil
		}
		if err != nil {
			return nil, fmt.Errorf("show stat: %w", err)
		}
		text := func(name string) string {
			if i := column[name]; i < len(row) {
				return row[i]
			}
			return ""
		}
		var bad error
		number := func(name string) int64 {
			// A column that does not apply to a kind of row is empty.
			if text(name) == "" {
				return 0
			}
			n, err := strconv.ParseInt(text(name), 10, 64)
			if err != nil {
				bad = fmt.Errorf("show stat: %s of %s/%s: %w", name, text("pxname"), text("svname"), err)
			}
			return n
		}
		s := Stat{
			Proxy: strings.Clone(text("pxname")), Kind: int(number("type")), Status: strings.Clone(text("status")),
			Sessions: number("scur"), Queued: number("qcur"), Total: number("stot"), Errors: number("econ"),
		}
		if s.Kind == 2 {
			s.Server = strings.Clone(text("svname"))
		}
		if bad != nil {
			return nil, bad
		}
		stats = append(stats, s)
	}
}
