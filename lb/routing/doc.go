// Package routing decides what HAProxy should do, without knowing HAProxy.
//
// In come a snapshot of the world and the operator's policy; out goes a table:
// listeners, routes, backends with their servers, and findings about what was
// refused and why. [Compile] is a pure function: the same input gives the same
// table, byte for byte. A [Compiler] makes the same tables of snapshots that follow
// each other, at the cost of what changed between them. The package does no input or
// output of any kind.
//
// Everything in a snapshot comes from people who deploy apps and is untrusted.
// A value gets into a table only through the parser of its key; what does not
// parse becomes a finding and hurts nobody but its own service.
package routing
