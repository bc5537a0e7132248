package fence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Book keeps a node's memory in a folder, one file, written anew and synced at each
// change. One process at a time has it open for a change: who waits for the lock sees
// what the one before wrote.
type Book struct{ folder string }

// NewBook makes the folder if it is not there, for its owner alone.
func NewBook(folder string) (*Book, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("the node's memory: %w", err)
	}
	return &Book{folder}, nil
}

// A Page is the memory while it is locked.
type Page struct {
	Memory
	folder string
	lock   *os.File
}

// Open waits for the lock and reads the memory. A memory that cannot be read is no
// empty one: that would forget every epoch.
func (b *Book) Open(ctx context.Context) (*Page, error) {
	f, err := os.OpenFile(filepath.Join(b.folder, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the node's memory: %w", err)
	}
	p := &Page{folder: b.folder, lock: f}
	if err := lock(ctx, f); err != nil {
		p.Close()
		return nil, fmt.Errorf("waiting for another call on this node to end: %w", err)
	}
	text, err := os.ReadFile(p.file())
	if err == nil {
		err = json.Unmarshal(text, &p.Memory)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.Close()
		return nil, fmt.Errorf("the node's memory %s cannot be read, and nothing is done without it: bring it back, or take it away if every controller is yours: %w", p.file(), err)
	}
	return p, nil
}

func (p *Page) file() string { return filepath.Join(p.folder, "memory.json") }

// Save makes what was noted durable.
func (p *Page) Save() error {
	text, err := json.Marshal(p.Memory)
	if err == nil {
		err = Write(p.file(), text)
	}
	if err != nil {
		return fmt.Errorf("the node's memory: %w", err)
	}
	return nil
}

// Close lets the lock go.
func (p *Page) Close() { _ = p.lock.Close() } // nothing was written to it

// Write replaces a file, for its owner alone, in one durable step.
func Write(file string, text []byte) error {
	next := file + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(next))
	}
	if err := os.Rename(next, file); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(file))
}

// lookEvery is how often a lock is tried that another process has: nothing tells
// when it is let go.
const lookEvery = 20 * time.Millisecond

// patiently tries until it is done, or the context ends.
func patiently(ctx context.Context, try func() (done bool, err error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if done, err := try(); done {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
