// Package consul is Consul: servers in each datacenter, an agent on every other
// node, and all datacenters joined over the WAN. It has two components, of servers
// and of clients, as clients come after the tokens that servers keep.
//
// Programs of a node use its agent at http://127.0.0.1:8500, in clear, and bring a
// token: ACLs deny by default. What leaves the machine is encrypted: gossip by key,
// RPC by TLS with the platform's own authority, in both directions, with servers'
// names verified. https on port 8501 of the private address is off unless consul_https
// turns it on; it wants a certificate of the platform.
//
// Files are in /etc/mi-lb/consul, by what a change of them means: consul.json
// restarts the agent; reload.json (the level of logs, limits of connections and rates,
// and what else Consul's documentation says is reloadable), tokens.json and the
// certificates in tls are read again without a restart; start.json has what only counts when an agent starts for the first time,
// or joins, and changes nothing of one that runs: the number of servers to begin
// with, whom to join, the first gossip key.
//
// All tokens have ids that were chosen beforehand and are in the files from the first
// start. The management token makes itself; the others are made through the API of
// the primary datacenter, each with what its user needs and nothing else, and arrive
// in other datacenters by replication. Tokens of nodes that are gone are deleted.
//
// Consul 1.12 or newer is needed.
package consul
