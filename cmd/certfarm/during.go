package main

import (
	"fmt"
	"time"
)

// How soon a person is told that something still goes on, and how often where the line
// is not drawn over.
const (
	soon  = time.Second
	rarer = 30 * time.Second
)

// during does what may take long, and says meanwhile that it goes on: on a terminal on
// one line that counts the seconds, elsewhere once in a while.
func (u *ui) during(what string, do func() error) error {
	ended, told := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(told)
		u.countUp(what, ended)
	}()
	err := do()
	close(ended)
	<-told
	return err
}

// countUp says every while how long something has been going on, until it has ended.
func (u *ui) countUp(what string, ended <-chan struct{}) {
	moves := isTerminal(u.err) && !u.dumb()
	every := rarer
	if moves {
		every = soon
	}
	began, tick := time.Now(), time.NewTicker(every)
	defer tick.Stop()
	for shown := false; ; {
		select {
		case <-ended:
			if shown {
				fmt.Fprint(u.err, "\r\x1b[K")
			}
			return
		case <-tick.C:
		}
		line := fmt.Sprintf("%s: %s so far", what, span(time.Since(began)))
		if !moves {
			u.say("%s", line)
			continue
		}
		shown = true
		width, _ := size(u.err)
		fmt.Fprint(u.err, "\r\x1b[K"+u.tint(u.err, faint, cut(line, width-1)))
	}
}
