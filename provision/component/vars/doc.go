// Package vars reads variables of the inventory for components: one value of a
// known type, its default, and what is wrong with it.
//
// In come a node and names of variables. Out go values, and problems with file and
// line for those that cannot be used. Names that mean something to the platform as
// a whole (addresses, ids, artefacts) are read by package cluster, not here.
package vars
