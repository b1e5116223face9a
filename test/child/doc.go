// Package child runs programs for tests that do not outlive them: the kernel ends a
// [Process] when the program that started it ends, however that ends, and a [Guard]
// clears up what is left then.
package child
