// Package registratoredge measures how fast containers and traffic follow each
// other: from "docker run" to the first request that a container serves through
// the edge, and from "docker stop" to the last one that reaches it, while clients
// ask without a pause, with kept connections and with new ones. Docker, Consul,
// HAProxy, "mi-lb registrator" and "mi-lb serve" are real ones. It needs root.
//
//	go test -run '^$' -bench . -benchtime 20x ./test/bench/registrator-edge
//
// The times are the container's own: when it was started, got its stop signal,
// and got requests. A request that fails, fails the benchmark.
package registratoredge
