// Package docker runs a private Docker Engine for tests: with data, sockets,
// bridge and address pool of its own, so that it meets no other engine of the
// machine, and without touching iptables. Published ports are reached through
// Docker's userland proxy. Images are made from a root file system that holds
// one static program, testserver; nothing is pulled.
//
// It needs root, dockerd and docker (Debian's docker.io has both). What it
// started ends with the test process, even if that is killed; what a killed one
// leaves behind (a bridge, a folder) the next start removes.
package docker
