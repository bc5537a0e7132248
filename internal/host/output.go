package host

import (
	"bytes"
	"sync"
)

// MaxOutput is how much of what a command writes is kept, in bytes: the end.
const MaxOutput = 64 << 10

// MaxFile is the largest file that Read returns, in bytes.
const MaxFile = 4 << 20

// An Output keeps the end of what is written to it. Both outputs of a command
// may write to it at once. The zero value is ready.
type Output struct {
	mu  sync.Mutex
	buf []byte
}

// Write never fails.
func (o *Output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.buf = append(o.buf, b...)
	if over := len(o.buf) - MaxOutput; over > MaxOutput || len(b) > MaxOutput {
		o.buf = append(o.buf[:0], o.buf[over:]...)
	}
	return len(b), nil
}

// Bytes returns a copy of the end of what was written.
func (o *Output) Bytes() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.buf[max(0, len(o.buf)-MaxOutput):])
}
