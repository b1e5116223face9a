// Package cluster says what platform an inventory describes: datacenters, nodes,
// what runs on each, under which address, in which version and from where.
//
// In come an inventory and the [State] that an earlier run stored. Out go a
// [Cluster], the state to store, and findings: what is refused and what is odd,
// each with a reason, a file and a line. If anything is refused, there is no
// cluster. Every number that a quorum depends on is counted within one datacenter,
// and ids that must never change come from the inventory or the state, not from
// an order of names.
//
// The package is pure: it connects to nothing, resolves no names and reads no
// files.
package cluster
