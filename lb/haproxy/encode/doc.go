// Package encode writes values into the places that HAProxy's configuration,
// map files and command line have for them.
//
// In come values of any origin, trusted or not; out goes text for one place, or
// an error saying why the value does not fit there. No value that an encoder lets
// through can end its line, begin another directive, command or argument, or be
// expanded: not by ${…} of the environment, not by %[…] of a log format. The
// package knows HAProxy's syntax and nothing of services or tables, and does no
// input or output.
package encode
