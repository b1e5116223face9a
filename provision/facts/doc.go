// Package facts finds out what a machine is: its system, addresses, clock, disks,
// listeners, packages, units, and the files that a plan is about.
//
// In come a machine that is reached and the names of what to look at. Out goes a
// value that can be stored and compared. It changes nothing on the machine, leaves
// nothing behind, and takes one round trip.
package facts
