package routing

import (
	"maps"
	"reflect"
	"slices"

	"github.com/mi-lb/mi-lb/watch"
)

// Compiler makes the tables of snapshots that follow each other. Each is the one that
// [Compile] makes of that snapshot and the claims of the table before, byte for byte;
// but it costs what has changed between the snapshots, and shares with the table before
// what has not: the slices of a table, and the pointers to its backends and services.
//
// What has changed is found by the pointers that parts share. A policy, or an order of
// the datacenters, that is another one than before has everything compiled again.
//
// A Compiler belongs to one goroutine; the tables do not.
type Compiler struct {
	held     Claims // of the table before the first
	snapshot *watch.Snapshot
	index    *index
	table    *Table
}

// NewCompiler makes a compiler whose first table respects the claims of an earlier one;
// nil if there is none.
func NewCompiler(held Claims) *Compiler { return &Compiler{held: held} }

// Compile makes the table of the snapshot.
func (c *Compiler) Compile(snapshot *watch.Snapshot, policy Policy) *Table {
	snapshot = inOrder(snapshot)
	ranks := distances(snapshot)
	before, table := c.snapshot, c.table
	if before == nil || !sameOrigins(before, snapshot) || !maps.Equal(ranks, c.index.distances) || !reflect.DeepEqual(policy, c.index.policy) {
		before, table = &watch.Snapshot{}, &Table{Routes: []Route{}}
		size := 0
		for _, part := range snapshot.Parts {
			size += len(part.Services) + len(part.Apps)
		}
		next := newIndex(policy, snapshot.Datacenter, ranks, size)
		if next.held = c.held; c.index != nil {
			next.held, next.former = c.index, c.index.backends
		}
		c.index, c.held = next, nil
	}
	c.index.update(before, snapshot)
	c.snapshot, c.table = snapshot, c.index.change(table)
	c.table.Revision, c.table.At = snapshot.Revision, snapshot.At
	return c.table
}

// inOrder is the snapshot with its parts sorted, as snapshots have them anyway.
func inOrder(s *watch.Snapshot) *watch.Snapshot {
	if slices.IsSortedFunc(s.Parts, compareParts) {
		return s
	}
	ordered := *s
	ordered.Parts = slices.SortedFunc(slices.Values(s.Parts), compareParts)
	return &ordered
}

func compareParts(a, b *watch.Part) int { return a.Source.Compare(b.Source) }

// sameOrigins says whether what is in both snapshots comes from the same datacenters.
func sameOrigins(before, after *watch.Snapshot) bool {
	if before.Datacenter != after.Datacenter {
		return false
	}
	for was, is := range pairs(before.Parts, after.Parts) {
		if was != nil && is != nil && was.Datacenter != is.Datacenter {
			return false
		}
	}
	return true
}

// pairs are the parts of the sources, before and after; nil where there is none.
func pairs(before, after []*watch.Part) func(yield func(was, is *watch.Part) bool) {
	return func(yield func(was, is *watch.Part) bool) {
		for len(before) > 0 || len(after) > 0 {
			var was, is *watch.Part
			switch {
			case len(after) == 0 || len(before) > 0 && compareParts(before[0], after[0]) < 0:
				was, before = before[0], before[1:]
			case len(before) == 0 || compareParts(before[0], after[0]) > 0:
				is, after = after[0], after[1:]
			default:
				was, is, before, after = before[0], after[0], before[1:], after[1:]
			}
			if !yield(was, is) {
				return
			}
		}
	}
}

// differences calls with what the maps do not share; nil is for what one lacks.
func differences[T any](before, after map[string]*T, call func(key string, was, is *T)) {
	common := 0
	for key, is := range after {
		was, had := before[key]
		if had {
			common++
		}
		if was != is {
			call(key, was, is)
		}
	}
	if common == len(before) {
		return
	}
	for key, was := range before {
		if _, has := after[key]; !has {
			call(key, was, nil)
		}
	}
}
