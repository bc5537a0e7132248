package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// How a file that somebody has open is waited for: Windows neither replaces nor
// removes it meanwhile.
const (
	LockTime   = 30 * time.Second
	firstPause = 10 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

// OnDrive reports whether a name is a path on Windows, such as C:/Apache24.
func OnDrive(name string) bool {
	if len(name) < 3 || name[1] != ':' || name[2] != '/' {
		return false
	}
	letter := name[0] | 0x20 // lower case
	return letter >= 'a' && letter <= 'z'
}

// A HeldError is a file that somebody had open all the time that it was waited for, or
// that a right is missing for: systems say the same of both.
type HeldError struct {
	Waited time.Duration
	Err    error // the last answer
	Ended  error // the context's, where that ended the wait and not LockTime
}

// Error says what was waited for and how long.
func (e *HeldError) Error() string {
	const held = "another program has the file open, or a right is missing"
	if e.Ended != nil {
		return fmt.Sprintf("%s: %v: %v", held, e.Err, e.Ended)
	}
	return fmt.Sprintf("%s (tried for %s): %v", held, e.Waited.Round(time.Millisecond), e.Err)
}

// Unwrap gives the last answer and the end of the context.
func (e *HeldError) Unwrap() []error {
	if e.Ended == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Ended}
}

// Patiently runs act again while its error is held, which says that somebody may
// have a file open, until it is free, LockTime is over, or the context ends: then the
// error is a *HeldError.
func Patiently(ctx context.Context, held func(error) bool, act func() error) error {
	begin, bound := time.Now(), time.NewTimer(LockTime)
	defer bound.Stop()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := act()
		if err == nil || !held(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-bound.C:
			timer.Stop()
			return &HeldError{time.Since(begin), err, nil}
		case <-ctx.Done():
			timer.Stop()
			return &HeldError{time.Since(begin), err, ctx.Err()}
		}
	}
}

// A Mover is a file system that renames over nothing, as SFTP without OpenSSH's
// extension does (draft-ietf-secsh-filexfer-02 §6.5).
type Mover interface {
	Move(from, to string) error      // fails where something is at to
	Remove(name string) error        // fs.ErrNotExist where nothing is
	There(name string) (bool, error) // whether something is
}

// Replace moves a file over what may be there, in the steps that a Mover has:
//
//	to ──▶ aside     a reader's lock refuses this, and nothing has changed
//	from ──▶ to
//	aside removed
//
// Between the first two there is nothing at to. A cut there leaves the old file
// aside and the new one at from, and another Replace, of the same or of another
// file, ends it. What cannot be removed aside goes with the next Replace.
func Replace(m Mover, from, to, aside string) error {
	there, err := m.There(to)
	if err != nil {
		return err
	}
	if !there {
		err := m.Move(from, to)
		if err == nil {
			_ = m.Remove(aside) // of a cut
		}
		return err
	}
	if err := m.Remove(aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.Move(to, aside); err != nil {
		return err
	}
	if err := m.Move(from, to); err != nil {
		return errors.Join(err, m.Move(aside, to))
	}
	_ = m.Remove(aside)
	return nil
}
