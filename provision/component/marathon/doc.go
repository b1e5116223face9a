// Package marathon is the Marathons of a datacenter.
//
// In come the platform and what was found on a node. Out go the program, its unit,
// and its configuration: ZooKeeper with the digest logins of Marathon and of Mesos,
// the principal that it registers with, and the login that its API asks for. What is
// secret is in files that only root, or Marathon's own user, can read. A Marathon is
// healthy when the datacenter has one leader, and answers through whichever member
// is asked. The leader is restarted last, after it has handed over.
//
// A change of the version goes from one minor version to the next, standbys first:
// when a new Marathon has led, no old one leads again.
package marathon
