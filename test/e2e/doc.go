// Package e2e tests mi-lb as its users have it: the real program between real HAProxy,
// real Consul and an emulated Marathon, under load, on good days and on bad ones.
//
// Every test waits for conditions, and asserts on traffic first and then on what
// mi-lb says about itself.
package e2e
