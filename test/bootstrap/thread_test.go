package bootstrap

import "runtime"

// lockThread keeps the goroutine's thread until unlock is called.
func lockThread() (unlock func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
