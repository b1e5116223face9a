// Package subject runs what is measured: mi-lb as it is by default, and what people use
// instead, on ports of their own, with the same HAProxy and the same number of threads.
//
// consul-template is built from the module version in go.mod. Its template is as short
// and as quick as one gets: backends named for services, found without a map, and
// HAProxy reloaded as Debian's unit does, by "haproxy -c" and SIGUSR2 to the master.
// Peers are shown at their best: their defects are not ours to repair, but none is
// provoked.
package subject
