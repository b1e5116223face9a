// Package consul watches the catalogs of all Consul datacenters through one
// agent.
//
// In go an agent's address, a token and TLS files, and the parts that were good
// when mi-lb last ran. Out go, to a [watch.Sink], one part per datacenter
// (source consul/<datacenter>), one part that holds the datacenters themselves
// with their round-trip times (source "consul/", its State being that of the
// agent), and the state of each.
//
// # How a datacenter is watched
//
// Every datacenter has a session of its own, so one that is unreachable delays
// no other. A session begins by reading the names of services and nodes, and
// then follows the catalog with blocking queries in one of three modes
// ([Watcher] chooses the cheapest that fits the connections there are):
//
//   - by service: one long-poll per service
//   - by node: two per node, one for its services, one for those of its checks that
//     do not pass; of their answers only what is new in them is decoded
//   - by trigger: two for the whole datacenter; what they show to have changed
//     is read again, and what they cannot show is found by a slow sweep
//
// One long-poll more, on the list of names, is the session's pulse: when it
// fails or its index goes backwards, nothing the other polls wait for can be
// relied upon, and the session starts anew. (Consul answers health/service from
// a stream; such a poll does not notice a restored snapshot or lost servers.)
//
// An agent keeps counting the connection of a blocking query that its client
// has given up, until the query's wait is over. Over plain HTTP and unix sockets, where an
// agent allows 200 connections per address, such connections are therefore still
// accounted for here.
//
// # What is never done
//
// Nothing is published because of an error, and what is missing from an answer
// is not taken for gone while there is reason to doubt the answer: see
// [Confirmation]. The package refuses no service and knows no routes; what
// cannot be used at all (an address that is none) is a finding. Proxies and
// gateways of Consul Connect are left out.
package consul
