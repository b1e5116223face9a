// Package plan is the difference between what machines should be and what they are.
//
// In come the parts that components want of each machine, and the facts found on
// it. Out goes a [Plan]: typed changes per machine in the order of waves, which
// units restart and why, and the actions in components' own state. It can be read
// by people, stored, and compared with the facts of a later time.
//
// Everything here is a pure function. Whether a unit must be restarted does not
// follow from what this run changes, but from stamps that apply leaves on the
// machine when it has: a run that was cut off between writing a file and
// restarting what reads it is completed by the next.
package plan
