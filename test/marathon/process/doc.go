// Package process runs one command so that nothing of it outlives its starter.
//
// In comes a command ([Spec]); out comes a running [Process]: optionally in a
// network namespace of its own, into which ports of the host are forwarded, so
// that any number of commands can listen on the same port of theirs, the way
// containers on a bridge do.
//
// Every process leads a process group and, where the starter is root, a pid
// namespace, and is tied to the starter's life by the kernel: also SIGKILL of
// the starter takes all of it down. No bridge, no packet filter, no files are
// used: namespaces live exactly as long as a thread of this program holds them.
//
// The package needs Linux. It knows nothing of Marathon.
package process
