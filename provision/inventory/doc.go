// Package inventory reads Ansible inventories: which hosts there are, in which
// groups, with which variables.
//
// In come sources (INI, YAML or JSON files, directories of them, programs that
// print JSON, lists of hosts), the group_vars and host_vars beside them, and
// extra variables. Out goes one [Inventory], read as ansible-core 2.14 reads the
// same sources: same hosts, same groups in the same order, same variables with
// the same types and the same precedence. Whatever was read knows the file and
// line it came from.
//
// The package never connects to a host and knows nothing of what a group means:
// that is the business of package cluster. Templates are resolved only when
// their value is asked for, and only as far as they name other variables.
package inventory
