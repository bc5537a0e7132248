package sshserver

import (
	"bytes"
	"io"
	"net"
	"sync"
	"time"
)

// Faults are the ways in which a server misbehaves. The zero value is none.
type Faults struct {
	Refuse   bool          // connections are cut, new ones are closed at once
	Hang     bool          // connections stand, but nothing that arrives is looked at
	DiskFull bool          // writing, making folders and making links fail
	Delay    time.Duration // how much later everything is looked at that arrives: a round trip
	// Alter changes bytes on their way to the disk: it gets the name of the file
	// on this machine and a part of its content, and returns as many bytes.
	Alter func(name string, part []byte) []byte
	// Before is called before each change of a file on a server with Windows, as in
	// "Rename /C:/a"; its error is the answer. It may call Cut.
	Before func(change string) error
}

// FlipWrites is an Alter that changes one bit of each part.
func FlipWrites(_ string, part []byte) []byte {
	changed := append([]byte(nil), part...)
	if len(changed) > 0 {
		changed[len(changed)/2] ^= 1
	}
	return changed
}

// SetFaults replaces the faults, for open connections too.
func (s *Server) SetFaults(f Faults) {
	s.faults.set(f)
	if f.Refuse {
		s.Cut()
	}
}

// faults are the faults of now, and a signal for those who wait for a change.
type faults struct {
	mu      sync.Mutex
	now     Faults
	changed chan struct{}
}

func (f *faults) get() Faults {
	now, _ := f.watch()
	return now
}

func (f *faults) watch() (Faults, <-chan struct{}) {
	if f == nil {
		return Faults{}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.changed == nil {
		f.changed = make(chan struct{})
	}
	return f.now, f.changed
}

func (f *faults) set(now Faults) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = now
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// line is a connection whose incoming bytes are late or never come. It delays
// without slowing down: what arrives together is seen together.
type line struct {
	net.Conn
	faults *faults
	queue  chan arrival
	rest   []byte
	err    error
	closed chan struct{}
	once   sync.Once
}

type arrival struct {
	at   time.Time
	data []byte
	err  error
}

func newLine(c net.Conn, f *faults) *line {
	l := &line{Conn: c, faults: f, queue: make(chan arrival, 64), closed: make(chan struct{})}
	go l.pump()
	return l
}

// pump ends when the connection is closed, which its server does in any case.
func (l *line) pump() {
	defer close(l.queue)
	b := make([]byte, 32<<10)
	for {
		n, err := l.Conn.Read(b)
		select {
		case l.queue <- arrival{time.Now(), bytes.Clone(b[:n]), err}:
		case <-l.closed:
			return
		}
		if err != nil {
			return
		}
	}
}

// Read returns bytes when they are due.
func (l *line) Read(b []byte) (int, error) {
	if len(l.rest) == 0 && l.err == nil {
		a, open := <-l.queue
		if !open || !l.wait(a.at) {
			return 0, io.EOF
		}
		l.rest, l.err = a.data, a.err
	}
	n := copy(b, l.rest)
	l.rest = l.rest[n:]
	if n == 0 {
		return 0, l.err
	}
	return n, nil
}

// wait returns when what arrived then is due; false when the line is closed.
func (l *line) wait(arrived time.Time) bool {
	for {
		now, changed := l.faults.watch()
		late := time.Until(arrived.Add(now.Delay))
		if !now.Hang && late <= 0 {
			return true
		}
		if now.Hang {
			late = time.Hour
		}
		timer := time.NewTimer(late)
		select {
		case <-l.closed:
			timer.Stop()
			return false
		case <-changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// Close ends the line and whoever waits for it.
func (l *line) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Conn.Close()
}
