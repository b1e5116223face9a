// Package standin builds programs that stand in for Mesos and Marathon in tests of
// provisioning, as no package source has these any more: mesos-master, mesos-agent
// and marathon.
//
// They read the flags, environment and files that the real ones read, and refuse
// what those refuse; in one thing they are stricter: variables of their prefix that
// are no flag are refused by the Mesos programs, too. Masters elect a leader and keep
// the members of their replicated log in ZooKeeper, with digest logins and the real
// znodes; a registry recovers by the rules of the replicated log (a quorum that voted,
// or all that are new). Agents register with the leader, and run tasks as Docker
// containers with the names and environment that Mesos gives them. Marathon leads by
// Curator's latch, and has the API of the emulator in test/marathon.
//
// What goes between the three is a protocol of their own below /standin/, with the
// credentials that Mesos would check. Nothing here schedules resources, keeps a real
// log, or can be talked to by a real Mesos.
package standin
