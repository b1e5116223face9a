// Package host runs a host of the platform for tests and benchmarks: a private
// Docker Engine, a Consul agent, and the real "mi-lb registrator" between them.
// An edge of package edge that watches the agent serves what runs there.
//
// Containers run test/docker's testserver, which answers with the container's
// name. They are reached at loopback: at a port that Docker publishes, or in the
// host's network at the port that Marathon would have given them.
//
// Nothing outlives the test. What registrator logged is shown when it fails; a
// data race or a panic in it fails the test.
package host
