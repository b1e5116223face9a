// Package docker is the Docker Engine of machines that run containers.
//
// On Debian and Ubuntu it is the distribution's docker.io; with docker_package set to
// docker-ce, and on the Red Hat family, it is Docker's own, from Docker's repository
// or a mirror of it (docker_repository). An engine that somebody else installs is
// left as it is but for /etc/docker/daemon.json: settings go there and never into the
// unit's command line. live-restore is on, so that an engine that is restarted leaves
// containers running.
//
// What Mesos needs of the engine's API is its own component's to check.
package docker
