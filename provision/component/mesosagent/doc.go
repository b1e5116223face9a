// Package mesosagent is the Mesos agent of a compute node.
//
// In come the platform and what was found on the node. Out go the program, its unit,
// and its configuration: the datacenter's ZooKeeper, its login, the isolation that
// the node's cgroups allow, and the version of Docker's API that Mesos understands.
// An agent is healthy when the datacenter's leader has it registered and active.
//
// Restarting an agent leaves its tasks alone. What the agent told the master of
// itself (attributes, resources, name, port) cannot just be changed: what Mesos would
// refuse is refused here, unless a reset is allowed, which drains the agent first and
// has it register as a new one.
package mesosagent
