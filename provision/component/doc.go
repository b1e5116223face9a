// Package component is what every component of the platform is to those that plan
// and apply: what a machine that runs it should be, whether it is healthy, and how
// it is restarted without anybody noticing.
//
// The components are packages below. What they say of files and units is pure: it
// follows from the platform and the facts. What they ask of programs that run goes
// through an SSH connection.
package component
