// Package registrator keeps a Consul agent's services equal to the containers
// that run on its host. It is a drop-in for gliderlabs/registrator 7: the same
// flags, registry URIs, SERVICE_* metadata, names, ids and checks.
//
// In come containers, as Docker's engine describes them ([Container]), and the
// services that the agent has ([Actual]). Out go the operations that make the
// second what the first ask for ([Operation]), applied to the agent, and
// findings about what could not be honoured.
//
// Three functions decide everything and do no I/O: [Describe] turns one
// container into services, [Merge] settles what several containers claim, and
// [Diff] compares with the agent. [Registrator] calls them whenever something
// changed: on start, on every reconnect to Docker or Consul, periodically, and
// on events. It never replays events: what it missed it sees.
//
// The package never touches a service that is not of this host's containers,
// never deregisters because it lost contact with Docker or Consul, and never
// logs a container's environment.
package registrator
