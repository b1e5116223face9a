package child

import (
	"bytes"
	"sync"
)

// Tail keeps the last of what is written to it. The zero value is empty; it is safe
// for concurrent use.
type Tail struct {
	mu   sync.Mutex
	data []byte
}

const tailLength = 8 << 10

// Write implements io.Writer.
func (t *Tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.data = append(t.data, b...)
	if over := len(t.data) - tailLength; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
	}
	return len(b), nil
}

// Bytes are what it keeps.
func (t *Tail) Bytes() []byte {
	t.mu.Lock()
	defer t.mu.Unlock()
	return bytes.Clone(t.data)
}

// String is what it keeps.
func (t *Tail) String() string { return string(t.Bytes()) }
