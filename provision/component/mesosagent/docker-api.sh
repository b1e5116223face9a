#!/bin/sh
# Written by mi-lb bootstrap, which overwrites changes.
#
# Mesos reads fields of "docker inspect" that Docker's API has up to version 1.44;
# newer engines still give them to clients that speak 1.44. Which engine runs may
# change with any upgrade, so it is asked whenever the agent starts.
set -eu
versions=$(docker -H "unix://$1" version --format '{{.Server.APIVersion}} {{.Server.MinAPIVersion}}') || {
	echo "the Docker Engine does not answer; see: systemctl status docker" >&2
	exit 1
}
api=${versions% *} least=${versions#* }
if [ "${least%%.*}" -gt 1 ] || [ "${least#*.}" -gt 44 ]; then
	echo "the Docker Engine speaks no API older than $least, and Mesos none newer than 1.44: install Docker 29 or older (docker_version)" >&2
	exit 1
fi
if [ "${api#*.}" -gt 44 ]; then
	echo DOCKER_API_VERSION=1.44 >"$2"
else
	: >"$2"
fi
