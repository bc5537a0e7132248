package smb

import "testing"

// Hold opens a file in the host's own session, and keeps it open until free: in
// one session Samba refuses to replace or remove it, as Windows does in all. An error of
// free says that the session has ended before, and the lock with it.
func (h *Host) Hold(t *testing.T, name string) (free func() error) {
	t.Helper()
	l, _, err := h.get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.share.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return f.Close
}
