// Package desired says what a machine should be: its packages, programs, users,
// directories, files and units.
//
// Components fill it in, as pure functions of the platform; what is found on the
// machine is compared with it, and the difference is a plan. The package knows no
// component and does no I/O.
package desired
