package several

import (
	"bytes"
	"net"
	"sync"
)

// A line goes from one controller to one place, and can be cut.
type line struct {
	listener net.Listener
	to       string

	mu   sync.Mutex
	cut  bool
	deaf bool
	mute chan struct{} // not nil: nothing gets through, and nobody is told; closed when it does again
	open map[net.Conn]bool
	bell map[net.Conn]bool // of open, those on which a controller listens for the others
}

func newLine(to string) (*line, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	n := &line{listener: l, to: to, open: map[net.Conn]bool{}, bell: map[net.Conn]bool{}}
	go n.serve() // ends when the listener is closed
	return n, nil
}

func (l *line) address() string { return l.listener.Addr().String() }

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
	both.Go(func() { l.carry(far, c, l.mayListen) })
	both.Go(func() { l.carry(c, far, nil) })
	both.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, end := range []net.Conn{c, far} {
		delete(l.open, end)
		delete(l.bell, end)
	}
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

// mayListen takes note of a controller that begins to listen for the others, and
// reports whether it may.
func (l *line) mayListen(from net.Conn, said []byte) bool {
	if !bytes.Contains(said, []byte("LISTEN ")) {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bell[from] = true
	return !l.deaf
}

// carry copies until one end is closed; while the line is mute it holds back.
func (l *line) carry(to, from net.Conn, may func(net.Conn, []byte) bool) {
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
		if may != nil && !may(from, buffer[:n]) {
			return
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

// deafen lets everything through but what the other controllers call.
func (l *line) deafen() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deaf = true
	for c := range l.bell {
		_ = c.Close() // it calls again, in vain
	}
}

// heal makes the line whole.
func (l *line) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut, l.deaf = false, false
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
