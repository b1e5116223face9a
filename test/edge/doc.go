// Package edge runs a real "mi-lb serve" with the HAProxy that it drives, on
// loopback, for end-to-end tests and benchmarks.
//
// In go [Options]; out comes an [Edge], a process with ports, configuration and a
// state directory of its own, which can be stopped, killed, handed over and started
// again with the same state, and which says what it knows through its admin
// interface. [Backend] is a server behind it that can fail in the ways servers do,
// [Load] are clients in front of it that count every request that fails.
//
// Nothing outlives the test: neither mi-lb nor its HAProxy, not after a failure nor
// after a panic, when a guard ends what is left. Processes are ended by their ids,
// and only those that run from the edge's own folder. What mi-lb logged is shown
// when the test fails; a data race or a panic in it fails the test.
package edge
