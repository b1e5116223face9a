// Package preflight looks for what would make a run fail half-way, before it
// begins.
//
// In come the platform with the facts of all machines. Out come problems, each with
// what to do about it. [Check] is pure. [Reach] tries whether machines reach each
// other at the ports of the platform; where nothing listens there yet it starts
// listeners that end with it, so it is for runs that change things anyway.
package preflight
