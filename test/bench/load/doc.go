// Package load asks at a constant rate, whatever becomes of the answers: an open loop.
//
// Every request has a time at which it is to be sent, and its latency is counted from
// then. Where answers are slow, requests that could not be sent in time are therefore
// slow, too, as they are for users; a closed loop would just ask less. A request that
// fails is counted with its reason.
package load
