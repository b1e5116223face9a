// Command soak lets an edge live through what happens in months, in minutes: services,
// instances and apps come, change and go all the time, under load and with connections
// that last, while Consul restarts or goes back to a snapshot, Marathon changes its
// leader or answers with errors, HAProxy is killed and mi-lb is killed.
//
//	go run ./test/soak -for 10m [-seed 1]
//
// It fails if
//
//   - a request or a lasting connection fails, other than while a killed HAProxy is
//     started again
//   - memory, goroutines, descriptors, replaced workers or leftover servers grow
//   - what HAProxy runs at the end is not what a fresh start would run
//
// Everything it does is decided by the seed, which it prints; what comes of it depends
// on time, too. "go test ./test/soak" is a short one.
package main
