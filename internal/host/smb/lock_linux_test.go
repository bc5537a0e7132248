package smb

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// Within one session Samba refuses as Windows does everywhere: a file that is
// open can neither be removed nor replaced.
func TestRealLock(t *testing.T) {
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": t.TempDir()}})
	h, err := New(Config{Server: s.Host, Port: s.Port, Share: "certs", User: smbtest.User, Password: smbtest.Secret(), Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	private := host.Attr{Mode: 0o600}
	hold := func() (free func()) {
		t.Helper()
		if err := h.Write(t.Context(), "/f", []byte("old"), private); err != nil {
			t.Fatal(err)
		}
		l, _, err := h.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.share.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		return func() { _ = f.Close() }
	}

	free := hold()
	time.AfterFunc(100*time.Millisecond, free)
	if err := h.Write(t.Context(), "/f", []byte("new"), private); err != nil {
		t.Errorf("replacing: %v", err)
	}
	if got, err := h.Read(t.Context(), "/f"); err != nil || !bytes.Equal(got, []byte("new")) {
		t.Errorf("there is %q (%v)", got, err)
	}
	free = hold()
	time.AfterFunc(100*time.Millisecond, free)
	if err := h.Remove(t.Context(), "/f"); err != nil {
		t.Errorf("removing: %v", err)
	}
	if _, err := h.Read(t.Context(), "/f"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	err = lockStays(t, h, func() { _ = hold() }, func(ctx context.Context) error { return h.Rename(ctx, "/f", "/g") })
	if !errors.Is(err, ErrLocked) || errors.Is(err, host.ErrUnreachable) {
		t.Errorf("a lock that stays gives %v", err)
	}
	// The session was ended with the call, and so was the lock that it held.
	if err := h.Rename(t.Context(), "/f", "/g"); err != nil {
		t.Errorf("renaming: %v", err)
	}
}

// lockStays acts on an open session against a lock, with more time on each try until
// the time's end does not fall into a request: that tells nothing of locks, and the
// session is lost with it.
func lockStays(t *testing.T, h *Host, hold func(), act func(context.Context) error) (err error) {
	t.Helper()
	for n := range 20 {
		if _, err := h.List(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		hold()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n+1)*100*time.Millisecond)
		err = act(ctx)
		cancel()
		if !errors.Is(err, host.ErrUnreachable) {
			break
		}
	}
	return err
}

// Another session's lock on a file keeps it from being removed or renamed.
func TestLockOfAnother(t *testing.T) {
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": t.TempDir()}})
	c := Config{Server: s.Host, Port: s.Port, Share: "certs", User: smbtest.User, Password: smbtest.Secret(), Timeout: 5 * time.Second}
	h, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	other, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for name, act := range map[string]func(ctx context.Context) error{
		"rename": func(ctx context.Context) error { return h.Rename(ctx, "/f", "/g") },
		"remove": func(ctx context.Context) error { return h.Remove(ctx, "/f") },
	} {
		if err := h.Write(t.Context(), "/f", []byte("x"), host.Attr{}); err != nil {
			t.Fatal(err)
		}
		l, _, err := other.get(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.share.Open("f")
		if err != nil {
			t.Fatal(err)
		}
		err = lockStays(t, h, func() {}, act) // the other session has the lock
		if !errors.Is(err, ErrLocked) || statusOf(err) != sharingViolation {
			t.Errorf("%s: got %v", name, err)
		}
		time.AfterFunc(100*time.Millisecond, func() { _ = f.Close() })
		if err := act(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A session that no call uses is let go of, and nothing of it stays.
func TestIdle(t *testing.T) {
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": t.TempDir()}})
	before := goleak.IgnoreCurrent()
	h, err := New(Config{Server: s.Host, Port: s.Port, Share: "certs", User: smbtest.User, Password: smbtest.Secret(), Idle: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := h.List(t.Context(), "/"); err != nil {
			t.Fatal(err)
		}
		goleak.VerifyNone(t, before)
		h.mu.Lock()
		open := h.line != nil
		h.mu.Unlock()
		if open {
			t.Error("the session is still open")
		}
	}
}
