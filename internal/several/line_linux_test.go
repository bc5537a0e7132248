package several

import (
	"net"
	"sync"
)

// A line goes from one controller to the database, and can be cut.
type line struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	cut  bool
	mute chan struct{} // not nil: nothing gets through, and nobody is told; closed when it does again
	open map[net.Conn]bool
}

func newLine(to string) (*line, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &line{listener: l, to: to, open: map[net.Conn]bool{}}
	go n.serve() // ends when the listener is closed
	return n, nil
}

func (l *line) serve() {
	for {
		c, err := l.listener.Accept()
		if err != nil {
			return
		}
		go l.join(c) // ends with its connections
	}
}

func (l *line) join(c net.Conn) {
	far, err := net.Dial("tcp", l.to)
	if err != nil || !l.add(c, far) {
		_ = c.Close() // cut
		if err == nil {
			_ = far.Close()
		}
		return
	}
	var both sync.WaitGroup
	both.Go(func() { l.carry(far, c) })
	both.Go(func() { l.carry(c, far) })
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
	delete(l.open, far)
}

func (l *line) add(all ...net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range all {
		if !l.cut {
			l.open[c] = true
		}
	}
	return !l.cut
}

// carry copies until one end is closed; while the line is mute it holds back.
func (l *line) carry(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		l.mu.Lock()
		mute := l.mute
		l.mu.Unlock()
		if mute != nil {
			<-mute
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// sever closes every connection and takes no other.
func (l *line) sever() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.open {
		_ = c.Close() // that is what is meant
	}
}

// silence lets nothing through and closes nothing.
func (l *line) silence() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mute == nil {
		l.mute = make(chan struct{})
	}
}

// heal makes the line whole.
func (l *line) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
	if l.mute != nil {
		close(l.mute)
		l.mute = nil
	}
}

func (l *line) close() {
	l.heal()
	l.sever()
	_ = l.listener.Close() // the story has ended
}
