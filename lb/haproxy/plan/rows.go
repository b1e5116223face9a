package plan

import (
	"iter"
	"maps"
)

type rowKey struct{ Map, Key string }

// maxLayer is how many changes lie over the base before they become part of it.
const maxLayer = 1000

// rows are the rows of all maps. They are immutable: a change is a layer over a base
// that many share, so that it costs its own size and not that of the maps.
type rows struct {
	base map[rowKey]string
	// layer: nil is a row of the base that is gone.
	layer map[rowKey]*string
}

func (r rows) get(k rowKey) (string, bool) {
	if value, ok := r.layer[k]; ok {
		if value == nil {
			return "", false
		}
		return *value, true
	}
	value, ok := r.base[k]
	return value, ok
}

func (r rows) with(changes map[rowKey]*string) rows {
	if len(changes) == 0 {
		return r
	}
	layer := make(map[rowKey]*string, len(r.layer)+len(changes))
	maps.Copy(layer, r.layer)
	maps.Copy(layer, changes)
	r.layer = layer
	if len(layer) > maxLayer {
		r = rows{base: maps.Collect(r.all())}
	}
	return r
}

// all rows, in no order.
func (r rows) all() iter.Seq2[rowKey, string] {
	return func(yield func(rowKey, string) bool) {
		for k, value := range r.base {
			if _, over := r.layer[k]; !over && !yield(k, value) {
				return
			}
		}
		for k, value := range r.layer {
			if value != nil && !yield(k, *value) {
				return
			}
		}
	}
}
