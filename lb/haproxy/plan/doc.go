// Package plan works out what it takes to make HAProxy run a routing table: typed
// operations for its runtime API, and the reasons for a reload where those do not
// suffice.
//
// In come a model of what runs ([Running]) and the table wanted; out goes a [Plan].
// The difference is to what runs, not to the table before: a server that was
// drained and comes back is set ready again, not added a second time, and a reason
// for a reload stays until there was one. [Running.Apply] is the model after some
// operations, [Running.After] after the whole plan, [New] after a reload; [Drift]
// compares the model with what HAProxy says.
//
// Order within a plan: servers first, then rows of maps that lead to them, then rows
// that go, then servers that go. No request meets a route without its servers.
//
// The cost is that of the change: backends are compared by pointer first, and
// tables share the backends that did not change.
//
// The package is pure. It sends nothing, waits for nothing and reads no clock: when
// a drained server is cut ([Running.Cut]) is the caller's to decide.
package plan
