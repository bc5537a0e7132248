package ccs

import (
	"context"
	"fmt"
	"time"
)

// How a reader's lock on a path of the system is waited for. On a share, smb.Host
// does it.
const (
	lockTime   = 30 * time.Second
	firstPause = 10 * time.Millisecond
	longPause  = 500 * time.Millisecond
)

// waiting is a folder of the system in which a file that a reader has open can
// neither be replaced nor removed, as Windows has it: it is tried again until the
// reader is done.
type waiting struct {
	Share
	held func(error) bool // the error says, or may say, that somebody has it open
}

// Rename waits for readers; see host.Files.
func (w waiting) Rename(ctx context.Context, from, to string) error {
	return w.wait(ctx, func() error { return w.Share.Rename(ctx, from, to) })
}

// Remove waits for readers; see host.Files.
func (w waiting) Remove(ctx context.Context, name string) error {
	return w.wait(ctx, func() error { return w.Share.Remove(ctx, name) })
}

func (w waiting) wait(ctx context.Context, act func() error) error {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	begin := time.Now()
	for pause := firstPause; ; pause = min(2*pause, longPause) {
		err := act()
		if err == nil || !w.held(err) {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("another program holds the file open, or a right is missing; it was waited for for %s: %w", time.Since(begin).Round(time.Millisecond), err)
		}
	}
}
