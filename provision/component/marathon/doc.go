// Package marathon is the Marathons of a datacenter.
//
// In come the platform and what was found on a node. Out go the program, its unit,
// and its configuration: ZooKeeper with the digest logins of Marathon and of Mesos,
// the principal that it registers with, and the login that its API asks for. What is
// secret is in files that only root, or Marathon's own user, can read. A Marathon is
// healthy when the datacenter has one leader, and answers through whichever member
// is asked. The leader is restarted last, after it has handed over.
//
// A change of the version follows its vendor's order as far as this goes: never two
// versions that lead by turns.
package marathon
