// Package zookeeper is one ZooKeeper ensemble in each datacenter, for Mesos and
// Marathon.
//
// It has a unit of its own, zookeeper.service, and its files in /etc/mi-lb/zookeeper;
// of Debian's packages only the program is used. Ensembles are static: zoo.cfg lists
// the datacenter's servers, with ids that never change, and ZooKeeper never rewrites
// it. Servers talk TLS to each other. A server that lost its data joins as one that
// has none, instead of electing emptiness: only where no quorum has data yet, servers
// are told to begin with nothing.
//
// /mesos and /marathon belong to the users mesos and marathon, by digest; nobody but
// the super user can make anything beside them. Clients talk to port 2181 in clear,
// as Mesos and Marathon can do nothing else: keep it within the datacenter.
//
// A change of the ensemble goes one server at a time, because two majorities of
// different lists need not have a server in common; anything else is refused.
package zookeeper
