// Package ask asks an edge for a host, one request after the other over one kept
// connection, with as little work as that takes: what measures shares the machine with
// what is measured.
package ask
