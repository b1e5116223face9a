// Package program lets programs use what is written for tests, such as test/edge:
// what fails there ends the program, and what is to be cleaned up is cleaned up at
// its end, also when it is interrupted.
package program
