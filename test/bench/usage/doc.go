// Package usage says what processes of this machine use, from /proc: CPU time,
// memory, descriptors and connections. Processes are given by their ids; one that
// has ended uses nothing.
package usage
