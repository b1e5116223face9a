// Package componenttest helps to test components: platforms made from the text of
// an inventory, facts of made-up machines, golden files of parts, and this machine
// as the one that a part is installed and run on.
//
// Nothing here stands in for a component's program: the real one is started as its
// unit says, with the files that the component renders, and asked through the same
// kind of connection that a machine of the platform is.
package componenttest
