package runtime

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/mi-lb/mi-lb/lb/haproxy/encode"
)

// Map is a map that the running configuration uses.
type Map struct {
	ID int
	// File is the path as the configuration has it; commands name a map by it.
	File string
	// Entries is how many rows it has; -1 where HAProxy does not tell.
	Entries int
}

// MapEntry is a row of a map.
type MapEntry struct {
	Key   string
	Value string
}

// Maps lists the maps of the process.
func (c *Client) Maps(ctx context.Context) ([]Map, error) {
	text, err := c.Read(ctx, "show map")
	if err != nil {
		return nil, err
	}
	return ParseMaps(text)
}

// ParseMaps reads the answer to `show map`.
func ParseMaps(text string) ([]Map, error) {
	var maps []Map
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		// 0 (/etc/x.map) pattern loaded from file '/etc/x.map' used by … entry_cnt=2
		id, rest, ok := strings.Cut(line, " (")
		n, err := strconv.Atoi(strings.TrimSpace(id))
		file, rest, closed := strings.Cut(rest, ") ")
		if !ok || err != nil || !closed {
			return nil, fmt.Errorf("show map: cannot read %.200q", line)
		}
		m := Map{ID: n, File: file, Entries: -1}
		if _, count, ok := strings.Cut(rest, "entry_cnt="); ok {
			if m.Entries, err = strconv.Atoi(strings.TrimSpace(count)); err != nil {
				return nil, fmt.Errorf("show map: entry_cnt in %.200q: %w", line, err)
			}
		}
		maps = append(maps, m)
	}
	return maps, nil
}

// MapEntries are the rows of the map that lookups see, in HAProxy's order.
func (c *Client) MapEntries(ctx context.Context, file string) ([]MapEntry, error) {
	cmd, err := Command("show map", file)
	if err != nil {
		return nil, err
	}
	text, err := c.Read(ctx, cmd)
	if err != nil {
		return nil, err
	}
	return ParseMapEntries(text)
}

// ParseMapEntries reads the answer to `show map FILE`: a row's address, key, and
// the rest of the line as its value.
func ParseMapEntries(text string) ([]MapEntry, error) {
	var entries []MapEntry
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" || line[0] == '#' {
			continue
		}
		id, rest, ok := strings.Cut(line, " ")
		if !ok || !strings.HasPrefix(id, "0x") {
			return nil, fmt.Errorf("show map: cannot read %.200q", line)
		}
		key, value, _ := strings.Cut(rest, " ")
		entries = append(entries, MapEntry{Key: strings.Clone(key), Value: strings.Clone(value)})
	}
	return entries, nil
}

// ReplaceMap makes the entries the whole of the map, in one step for lookups: a
// new version is prepared, filled and committed. If anything fails before the
// commit, lookups still see what they saw.
func (c *Client) ReplaceMap(ctx context.Context, file string, entries []MapEntry) error {
	prepare, err := Command("prepare map", file)
	if err != nil {
		return err
	}
	lines := make([]string, len(entries))
	for i, e := range entries {
		if lines[i], err = encode.MapRow(e.Key, e.Value); err != nil {
			return fmt.Errorf("%w: row %d of %s: %w", ErrInvalidCommand, i, file, err)
		}
		if len(lines[i]) > maxLine/2 {
			return fmt.Errorf("%w: row %d of %s has %d bytes", ErrInvalidCommand, i, file, len(lines[i]))
		}
	}
	text, err := c.Read(ctx, prepare)
	if err != nil {
		return err
	}
	_, version, ok := strings.Cut(text, ":")
	version = strings.TrimSpace(version)
	if _, err := strconv.ParseUint(version, 10, 32); !ok || err != nil {
		return fmt.Errorf("prepare map %s: no version in %q", file, text)
	}
	add, err := Command("add map @"+version, file)
	if err != nil {
		return err
	}
	var payload bytes.Buffer
	send := func() error {
		if payload.Len() == 0 {
			return nil
		}
		payload.WriteByte('\n')
		replies, err := c.line(ctx, []string{add}, payload.Bytes())
		payload.Reset()
		if err == nil {
			err = replies[0].Err()
		}
		if err != nil {
			return fmt.Errorf("fill map %s: %w", file, err)
		}
		return nil
	}
	for _, line := range lines {
		if payload.Len()+len(line)+len(add)+100 > maxLine {
			if err := send(); err != nil {
				return err
			}
		}
		payload.WriteString(line)
		payload.WriteByte('\n')
	}
	if err := send(); err != nil {
		return err
	}
	commit, err := Command("commit map @"+version, file)
	if err != nil {
		return err
	}
	if _, err := c.Read(ctx, commit); err != nil {
		return fmt.Errorf("commit map %s: %w", file, err)
	}
	return nil
}
