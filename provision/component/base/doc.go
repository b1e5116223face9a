// Package base is what every machine of the platform has, whatever runs on it:
// packages that others need, a clock that is kept right, settings of the kernel,
// limits, log rotation, and the machine's certificate and key.
//
// The certificate and key are in /etc/mi-lb/tls (the variable tls_dir): ca.pem and
// node.pem for everybody, node-key.pem for root and the group mi-lb-tls. Components
// whose program reads its certificate again without a restart have copies of their
// own, so that they are told when those change.
//
// Nothing is done to what the machine's owner set up: a clock that is kept right
// already is left alone, and files of packages are added to, not replaced.
package base
