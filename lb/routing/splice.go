package routing

import "slices"

// change puts a value in the place of the one that compares equal to it, or takes that
// one away.
type change[E any] struct {
	value E
	gone  bool
}

// splice is a sorted list with changes made to it. Without any it is the same list;
// with some it costs a copy and no comparison beyond those that find the places. There
// is at most one change to a place.
func splice[E any](old []E, changes []change[E], compare func(a, b E) int) []E {
	if len(changes) == 0 {
		return old
	}
	slices.SortFunc(changes, func(a, b change[E]) int { return compare(a.value, b.value) })
	size := len(old)
	for _, c := range changes {
		if !c.gone {
			size++
		}
	}
	made := make([]E, 0, size)
	for _, c := range changes {
		i, found := slices.BinarySearchFunc(old, c.value, compare)
		made = append(made, old[:i]...)
		if found {
			i++
		}
		old = old[i:]
		if !c.gone {
			made = append(made, c.value)
		}
	}
	return append(made, old...)
}

// orNil is nil for what is empty, as a table has it that is made all at once.
func orNil[E any](all []E) []E {
	if len(all) == 0 {
		return nil
	}
	return all
}
