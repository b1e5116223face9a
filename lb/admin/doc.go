// Package admin is the edge's interface for people and programs that operate it:
// health, metrics, what is routed where and why, what happened.
//
// It reads what [Edge] tells and changes nothing but on request (the signals that
// Marathon-lb had). It never shows a secret, because none gets as far as here.
package admin
