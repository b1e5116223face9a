// Package haproxy makes HAProxy do what a table says, and keeps it so.
//
// In come tables, the newest wins. Out go runtime commands where they suffice, and
// validated files with a hitless reload where they do not; the files on disk always
// catch up with what runs, so that a HAProxy that is restarted at any time comes up
// right. What HAProxy runs is read back regularly, and differences are repaired.
//
// The parts: encode (values fit for their place in a file or command), render
// (tables to files), plan (the difference between two states as operations), runtime
// (HAProxy's sockets), process (starting, adopting, reloading, supervising). This
// package is the one place that ties them together. It does not know where a table
// comes from.
package haproxy
