// Package registrator puts the containers of compute nodes into Consul.
//
// In come the platform and what was found on a node. Out goes a registrator.service
// that runs "mi-lb registrator", or gliderlabs/registrator where the inventory names
// an image, with a token that can register services and nothing else. It is healthy
// when the node's Consul agent has what the node's containers ask for.
//
// Restarting it changes no service: they stay registered meanwhile.
package registrator
