// Package templates renders the templates that HAProxy's files come from.
//
// In come template sources (built in, or the operator's from a directory), the
// functions that a caller adds, and snapshots of the world; out goes text. The
// language is consul-template's, all of it: what templates ask of the catalog
// (services, service, datacenters) is answered from the snapshot and costs Consul
// nothing; anything else (key, ls, tree, nodes, secret, file …) is fetched with
// consul-template's own clients, kept fresh, and kept through errors. As in
// consul-template nothing is rendered while something a template asks for has
// never been seen: that is a [MissingError], which names it.
//
// The package knows nothing of routing tables or HAProxy; it writes no files. The
// templates of an operator are trusted as its configuration is, but for the
// functions that run programs or write files, which must be allowed by name.
//
// consul-template logs through Go's standard logger, at its TRACE level values of
// keys included; a program that uses this package sets that logger's output to a
// [LogFilter].
package templates
