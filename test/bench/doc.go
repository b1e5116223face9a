// Command bench measures mi-lb beside consul-template with HAProxy, and its HAProxy
// beside one that is configured by hand: on real Consul, with real requests, on one
// machine, in one run.
//
//	go run ./test/bench                                   # everything, about half an hour
//	go run ./test/bench -quick                            # everything in small, to see that it works
//	go run ./test/bench -run propagation -services 1000   # one part, one size
//	go run ./test/bench -run scale,churn -subjects mi-lb  # without peers
//
// The parts are scale and propagation (which share what they start), churn, throughput
// and recovery. Each prints its tables; unless -quick is given they are also written to
// docs/benchmarks, with charts and the raw figures. docs/benchmarks/README.md says how
// things are measured and how the figures are to be read.
package main
