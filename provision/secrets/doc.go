// Package secrets holds everything secret about a platform in one bundle on the
// operator's machine: tokens, keys, passwords, the certificate authority, and the
// certificates of nodes.
//
// In come a cluster and the bundle that an earlier run stored. Out goes a bundle
// with what is missing added; nothing that exists is ever generated anew, unless
// that was asked for. A bundle is stored encrypted with age, by passphrase or key,
// or readable by its owner only.
//
// Printing, logging or encoding a bundle shows names, never values. Generated
// values keep to characters that every program they are for can take: those for
// ZooKeeper, Mesos and Marathon are letters and digits, because they end up in
// URLs that are taken apart by regular expressions.
package secrets
