// Package consul runs real Consul agents on loopback, for tests and for the
// sandbox.
//
// In go [Options]; out comes an [Agent] that is a child process with ports of
// its own, tuned to have a leader in a second or two. An agent can be stopped,
// killed and started again on the same ports, with its data or empty. Agents of
// several datacenters join through [Options.JoinWAN].
//
// An agent never outlives the program that started it, however that ends, and
// never listens on anything but loopback unless told to. The package emulates
// nothing: what it runs is the consul on PATH (1.16 or newer), or the one that
// "make tools" builds into bin/.
package consul
