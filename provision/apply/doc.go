// Package apply makes machines what a plan says.
//
// In come a survey of the platform and what the run is about. It goes through the
// components in waves: on all machines of a wave at once, as far as that costs no
// quorum, with a gate after each that proves health rather than an open port. A
// machine that fails stops what depends on it in its own datacenter, and nothing
// else. Out go events while it works, and an [Outcome].
//
// A run may end at any point, and the next one completes what it left: files take
// their place in one step, and stamps on the machine say which units do not run yet
// what is written down. Nothing is decided here that a plan does not show, but for
// what only an earlier wave can bring to light.
package apply
