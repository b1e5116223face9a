// Package resolve turns the host names that registries hold into addresses.
//
// In come host names and literal addresses; out comes one address for each,
// remembered for a while and then looked up again. A name that stops resolving
// keeps the address it last had, together with the error: "unknown" is never
// turned into "none". The package never picks another address while the one it
// picked before is still among the answers.
package resolve
