// Package mesosmaster is the Mesos masters of a datacenter.
//
// In come the platform and what was found on a node. Out go the program, its unit,
// and its configuration: ZooKeeper with the digest login of Mesos, a quorum counted
// within the datacenter, credentials of Marathon, agents and mi-lb, and ACLs. Secrets
// are in files that the environment names, and in nothing else. Masters are healthy
// when exactly one of the datacenter is elected and the replicated log of each has
// recovered. The leader is restarted last, and nobody while another one is away.
//
// A quorum that grows is brought about in two runs: first the masters that are there
// get the new quorum, then the new ones start. From one master to more the registry
// cannot be kept, and that is refused unless it is accepted.
package mesosmaster
