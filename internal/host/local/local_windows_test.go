package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/windows"

	"github.com/certfarm/certfarm/internal/host"
)

// hold opens a file as a server does that shares nothing but reading.
func hold(t *testing.T, name string) (closed func()) {
	t.Helper()
	text, err := windows.UTF16PtrFromString(name)
	if err != nil {
		t.Fatal(err)
	}
	file, err := windows.CreateFile(text, windows.GENERIC_READ, windows.FILE_SHARE_READ, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() { _ = windows.CloseHandle(file) }
}

// A file that a reader has open is replaced once it is free, and removed likewise; a
// reader that stays keeps what it has.
func TestReadersLock(t *testing.T) {
	folder, err := os.MkdirTemp("", "lock")
	if err != nil {
		t.Fatal(err)
	}
	h, name := New(Config{}), filepath.ToSlash(filepath.Join(folder, "f.pem"))
	write := func(ctx context.Context, text string) error {
		return h.Write(ctx, name, []byte(text), host.Attr{Mode: 0o600})
	}
	if err := write(t.Context(), "old"); err != nil {
		t.Fatal(err)
	}
	closed := hold(t, name)
	if err := os.Rename(name, name+".moved"); err == nil {
		t.Fatal("a file that is held open could be moved: the test holds nothing")
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := write(short, "new"); !errors.Is(err, context.DeadlineExceeded) || !held(err) {
		t.Errorf("got %v", err)
	}
	if got, err := h.Read(t.Context(), name); err != nil || string(got) != "old" {
		t.Errorf("there is %q (%v)", got, err)
	}
	begin := time.Now()
	time.AfterFunc(300*time.Millisecond, closed)
	if err := write(t.Context(), "new"); err != nil || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("after %s: %v", time.Since(begin), err)
	}
	if got, err := h.Read(t.Context(), name); err != nil || string(got) != "new" {
		t.Errorf("there is %q (%v)", got, err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 1 {
		t.Errorf("there are %v (%v)", left, err)
	}
}
