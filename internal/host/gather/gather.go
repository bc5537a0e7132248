// Package gather makes few large writes of many small ones. Its invariant: what is
// written goes out once, whole, and in the order in which it was written.
package gather

import (
	"io"
	"runtime"
	"sync"
)

// most is how much may wait to be sent before a Write waits, too.
const most = 1 << 20

// A Writer sends what was written while the send before it was under way as one:
// many small requests on one line then cost little more than one. Its Write only
// hands over; what goes wrong with it is told by a later one, and by the answer that
// does not come. Run sends, and must be running.
type Writer struct {
	to io.WriteCloser

	mu     sync.Mutex
	moved  sync.Cond // something was written or sent, or it is over
	wait   []byte
	err    error
	closed bool
	ended  chan struct{}
}

// New makes a writer.
func New(to io.WriteCloser) *Writer {
	g := &Writer{to: to, ended: make(chan struct{})}
	g.moved.L = &g.mu
	return g
}

// Write hands p over. It may be called by many at once.
func (g *Writer) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.wait) > most && g.err == nil && !g.closed {
		g.moved.Wait()
	}
	switch {
	case g.err != nil:
		return 0, g.err
	case g.closed:
		return 0, io.ErrClosedPipe
	}
	g.wait = append(g.wait, p...)
	g.moved.Broadcast()
	return len(p), nil
}

// Run sends until Close, or until nothing can be sent.
func (g *Writer) Run() {
	defer close(g.ended)
	var sent []byte
	for {
		g.mu.Lock()
		for len(g.wait) == 0 && !g.closed {
			g.moved.Wait()
		}
		g.mu.Unlock()
		runtime.Gosched() // who is about to write goes along
		g.mu.Lock()
		g.wait, sent = sent[:0], g.wait
		g.mu.Unlock()
		if len(sent) == 0 {
			return
		}
		_, err := g.to.Write(sent)
		g.mu.Lock()
		g.err = err
		g.moved.Broadcast()
		g.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close sends what waits and closes what it is sent to.
func (g *Writer) Close() error {
	g.mu.Lock()
	g.closed = true
	g.moved.Broadcast()
	g.mu.Unlock()
	<-g.ended
	return g.to.Close()
}
