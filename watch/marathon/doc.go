// Package marathon watches one Marathon cluster, of any version from 0.8 to
// 1.11, and gives commands to it.
//
// In come Marathon's app documents and its event stream; out goes a
// [watch.Part] with one [watch.App] per app, its networking resolved to service
// ports and addresses. [Watcher] keeps the part fresh, [Client] gives commands.
//
// Events are hints. What they say about a task that ends is applied at once, so
// that it drains before anything is asked; apart from that an event only causes
// the app it is about to be read again, and everything is read on every connect
// and once in a while. A read that fails is repeated until it succeeds.
//
// # Tasks
//
// Running tasks are in the part, and those whose agent is unreachable (they
// mostly still serve). Tasks in TASK_KILLING are in maintenance.
//
// Tasks that do not run are in the part, too, critical and with their state for a
// reason, so that a registration that comes before its task, or outlives it, is
// known for that app's: those that are created, staging or starting, as soon as
// one of their addresses is known; and those that have ended, with the last
// addresses known, in the state that they ended in, or in TASK_GONE where Marathon
// merely ceased to list them. These stay for [Intervals.Linger], but not longer
// than until another task has one of their addresses, and not longer than their
// app: a deleted app is gone at once, with its service ports and its name. What
// is still registered for its tasks is then a service of its own, under the name
// it is registered by, until the registry takes it away.
//
// A task of an app with health checks is passing if all its results are alive,
// and critical if one is not. Without results the last known verdict stands,
// also one from before a restart: Marathon loses the results of its own checks
// with every change of leader. A task that never had a verdict is critical as
// long as another task of the app is healthy, and for no longer than its checks
// need for a first result; if none is healthy, it is unknown, and the edge's own
// checks decide. Tasks of apps without health checks are unknown. During a
// deployment a task whose readiness check has not passed is critical.
//
// # What is not believed
//
// Errors of any kind leave the last good part in place, except that tasks that
// have ended go when their time is over. A list that suddenly
// lacks everything, or more than half of the apps or tasks, right after an
// error, a reconnect or a change of leader is held back until a second read
// says the same. A 404 removes an app only if it is Marathon who says so. A
// document that cannot be read costs only itself, as a finding.
//
// The package never keeps environment variables other than SERVICE_* strings,
// never sends credentials to hosts that are neither configured nor named as
// leader by one that is, and does not watch pods, which have no service ports.
package marathon
