// Package bootstrap tests "mi-lb bootstrap" on machines: whole platforms are built
// on test hosts with the real command line, over real SSH, from packages of the real
// mirror, and then broken.
//
// Consul, ZooKeeper, Docker, HAProxy and mi-lb are real. Mesos and Marathon, which
// no package source has any more, are the stand-ins of package standin.
package bootstrap
