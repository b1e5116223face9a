// Package world is what an edge is measured in: a real Consul with a catalog of many
// services, and servers for all of their instances.
//
// Consul is one server, and beside each edge a client agent, as edge nodes have it: one
// with the default limits, and one that allows as many connections as are asked for.
// The catalog is spread over nodes without agents, registered by transactions; it takes
// a second or two for 20,000 instances. All instances have addresses of their own on
// loopback, on the one port of one server, which says in its answers which address was
// asked: no instance is a fake.
package world
