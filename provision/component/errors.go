package component

import "errors"

// ErrNotRunning is a component that nobody answers for yet.
var ErrNotRunning = errors.New("not running yet")
