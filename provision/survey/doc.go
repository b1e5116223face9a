// Package survey puts together what is known of a platform before anything is
// changed: the facts of all machines, where each has its address, what components
// want of each, and what keeps them from saying so.
//
// In come a cluster, its machines and its secrets. Out comes a [Survey], which
// plans are made from. What to look at on a machine follows from what components
// would want of it if it were one of a few usual ones, so that one round trip
// answers almost always; a machine that turns out otherwise is asked again.
package survey
