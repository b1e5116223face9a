// Package runtime talks to a running HAProxy: to a worker over its runtime API
// ([Client]) and to the master of a master-worker pair ([Master]).
//
// In go commands, many at a time; out come one [Reply] per command, in order, and
// typed views of what HAProxy says of itself: [Info], [Server], [MapEntry],
// [Stat], [Processes], [Capabilities].
//
// The connection is our own. client-native's reads what it can and drops the
// error of the read: an answer that was cut off looks like one that is complete,
// and no answer like success. It also sends one command per connection. It is used
// where an incomplete answer shows and hurts nobody: [Client.Process].
//
// How an answer is known to be whole, and whose it is: HAProxy ends most answers
// with an empty line, but not all, and some hold empty lines. So `show version`
// is put before the first command, after every command and at the end. Its answer
// is learned from the first and separates all others. An answer that has no
// separator after it is an error ([ErrTruncated]), never an empty success.
//
// A connection serves one line of commands and is closed. One that is kept stays
// with its worker over a reload, keeps it alive, and takes updates that no
// traffic sees.
//
// The package decides nothing about servers or routes and starts no process.
package runtime
