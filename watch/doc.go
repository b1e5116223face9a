// Package watch holds what the world looks like: which services there are, on
// which addresses, and how they are.
//
// In come the parts that sources publish ([Part]: one datacenter's catalog, one
// Marathon cluster, one file). Out goes one immutable [Snapshot] of all of them.
//
// A source that lost contact keeps its last good part: "unknown" is never
// turned into "none" here. The package does not know what the parts are used
// for; it decides no route and refuses no service.
package watch
