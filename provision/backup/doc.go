// Package backup keeps what components write down of their own state before they are
// changed: on the operator's machine, where it outlives any of the platform's, and
// encrypted as the secrets are, as there are secrets in it.
//
// In comes something that writes; out goes a file that is complete, or none. The
// last few of each kind are kept. It never reads one back.
package backup
