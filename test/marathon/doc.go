// Package marathon emulates a Marathon cluster for tests and the sandbox: its
// HTTP API, its event stream, and the apps it runs.
//
// In come [Options], HTTP requests as Marathon's clients make them, and faults
// to show ([Cluster.Inject] and its kin, or HTTP under /_emulator/). Out come
// Marathon's documents and events, in the shapes of the release that the options
// name, and real processes: an app's cmd runs on this machine, with host, bridge
// or container networking on loopback addresses. An [Observer] hears of tasks as
// Registrator hears of containers.
//
// With [Options.Fake] no process is started: tasks run at once, and tests put
// apps and tasks with addresses of their own ([Cluster.PutApp],
// [Cluster.SetTasks]), thousands of them if need be.
//
// With [Options.Runner] tasks run where the caller runs them, on agents that come
// and go; what the cluster knows can be stored and restored.
//
// It never speaks to Mesos, never pulls an image (a container's cmd runs on the
// host's file system), never limits cpu or memory, and forwards no UDP.
package marathon
