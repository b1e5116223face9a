// Package render writes down for HAProxy what a routing table says.
//
// In come a [routing.Table], the operator's [Settings] and the templates; out go
// [Files] (haproxy.cfg and the maps that it names) and the arguments of
// `add server`, both from the same template. [Write] puts files on disk as a
// whole or not at all, [Compare] says how one set differs from another, and
// [Lint] reads what an operator's own templates produce.
//
// The package runs no HAProxy and talks to none. Every value of a table passes an
// encoder before a template sees it: no table, however made, adds a line or a
// directive.
package render
