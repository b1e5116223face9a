// Package process keeps a HAProxy in master-worker mode running, takes it over
// after a restart of its starter, and reloads it so that nobody notices.
//
// In come the files HAProxy runs from, the paths of its sockets and a policy for
// reloads. Out come the [State] of its processes, an [Event] whenever another
// worker serves, and what HAProxy said where it refused something.
//
// A managed HAProxy is started in a session of its own and is not ended with the
// program that started it: [Process.Adopt] finds it again by its master socket.
// An attached one belongs to somebody else, systemd as a rule; it is watched and
// reloaded, never started or stopped.
//
// The outcome of a reload is read from the master and confirmed by the new worker;
// one that a master lost, as those before 2.7 do while they start themselves anew,
// is asked for again. There is never a second one under way.
//
// The package writes no configuration, knows no servers or routes, and does not
// talk to systemd.
package process
