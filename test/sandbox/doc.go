// Package sandbox runs a whole platform on one machine, on loopback: Consul,
// Marathon and an edge for each of several datacenters, as end-to-end tests and
// "make demo" need it.
//
// In go [Options]; out comes a [Sandbox] whose edges are ready. Consul, joined
// over the WAN, HAProxy and mi-lb are the real programs, mi-lb with a
// configuration file of its own; Marathon is emulated by test/marathon, and its
// apps run as processes. A task with a Docker image is registered with the Consul
// of its datacenter as Registrator would register its container: by the rules of
// watch/registrator, for as long as it runs.
//
// A sandbox leaves nothing behind, neither process nor file nor network
// namespace: not when it is stopped, not when it fails to start, and not when its
// program is killed, after which a guard ends what the kernel does not. It ends
// only processes that it started, by their ids or because they run from its
// folder, never by their names.
//
// It listens on loopback only, and decides nothing about routing.
package sandbox
