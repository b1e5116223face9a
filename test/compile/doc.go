// Package compile holds tests of what becomes of real app documents on their whole
// way from Marathon's answer to a table: in comes what public projects publish as
// examples and test cases, out goes what is routed where. It has no code of its
// own.
package compile
