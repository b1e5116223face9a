// Package edge is HAProxy and mi-lb serve on edge nodes.
//
// In come the platform and what was found on a node. Out goes what the node should
// have: HAProxy, whose own unit is masked because mi-lb runs it; the program; its
// configuration with the platform's domain, the Consul agent of the node and the
// Marathons of all datacenters; and mi-lb.service. An edge is healthy when it serves
// from every source of its own datacenter. Edges are restarted one at a time, and
// only while another one of the datacenter serves, if there is another one.
//
// The package configures no DNS, no firewall and no certificates of services.
package edge
