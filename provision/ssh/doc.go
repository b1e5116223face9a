// Package ssh reaches the machines of a platform: it runs commands, moves files,
// and opens connections from there.
//
// In come [Target]s, as the inventory describes them, and [Options]: keys, the
// agent, an ssh_config, and the known_hosts of the cluster. Out come [Host]s. A
// host may also be the machine that mi-lb runs on.
//
// Host keys are checked strictly unless the operator says otherwise. Passwords go
// through standard input only, never into a command line, a log or an error. The
// package decides nothing about what is done on a host.
package ssh
