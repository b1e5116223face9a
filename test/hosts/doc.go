// Package hosts runs machines for tests of provisioning: a Debian with systemd,
// sshd and an address each, fresh from the installer. They are containers of a
// private Docker Engine (package docker), on a network of their own; to whoever
// logs in they are machines: apt installs, systemd runs services, Docker runs
// containers, power fails.
//
// Machines reach each other and the test, and nothing else. apt gets its packages
// through a proxy of the test, which asks the mirrors that this machine's apt is
// configured for, and keeps what it got. The root file system is made once by
// debootstrap and kept beside those packages in the user's cache directory.
//
// The kernel and its clock are shared, so a machine's clock cannot be set; see
// [Machine.SkewClock] for what is done instead.
//
// It needs root, and Debian's debootstrap and docker.io. Everything but the cache
// is removed when the test ends, and after a killed one by the next.
package hosts
