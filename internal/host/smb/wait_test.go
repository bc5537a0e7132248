package smb

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloudsoda/go-smb2"
)

// answers gives the errors in turn, and then success.
func answers(all ...error) (act func() error, calls *int) {
	calls = new(int)
	return func() error {
		*calls++
		if *calls > len(all) {
			return nil
		}
		return all[*calls-1]
	}, calls
}

func nt(s status) error {
	return &os.LinkError{Op: "rename", Err: &smb2.ResponseError{Code: uint32(s)}}
}

func always() bool { return true }

// Samba does not refuse to replace a file that another reads, Windows does: its
// answers are given by hand.
func TestReadersLockIsWaitedFor(t *testing.T) {
	denied := &os.LinkError{Op: "rename", Err: os.ErrPermission}
	for name, c := range map[string]struct {
		answers []error
		denied  func() bool
		calls   int
		is      error
	}{
		"free":                  {nil, never, 1, nil},
		"sharing violation":     {[]error{nt(sharingViolation), nt(sharingViolation)}, never, 3, nil},
		"being deleted":         {[]error{nt(deletePending)}, never, 2, nil},
		"a file of it is open":  {[]error{nt(notEmpty)}, never, 2, nil},
		"denied by a reader":    {[]error{denied, denied, denied}, always, 4, nil},
		"denied by rights":      {[]error{denied}, never, 1, fs.ErrPermission},
		"no room is no lock":    {[]error{nt(diskFull)}, always, 1, nt(diskFull)},
		"a lock, then no right": {[]error{nt(sharingViolation), denied}, never, 2, fs.ErrPermission},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				act, calls := answers(c.answers...)
				err := patient(t.Context(), act, c.denied)
				if *calls != c.calls || c.is == nil && err != nil || c.is != nil && statusOf(err) != statusOf(c.is) && !errors.Is(err, c.is) {
					t.Errorf("%d calls, got %v", *calls, err)
				}
			})
		})
	}
}

func TestLockThatStays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		begin := time.Now()
		err := patient(ctx, func() error { return nt(sharingViolation) }, never)
		if !errors.Is(err, ErrLocked) || errors.Is(err, context.DeadlineExceeded) || statusOf(err) != sharingViolation {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("took %s", took)
		}
		begin = time.Now()
		err = patient(t.Context(), func() error { return os.ErrPermission }, always)
		if took := time.Since(begin); !errors.Is(err, fs.ErrPermission) || took < deniedPause || took > deniedPause+time.Second {
			t.Errorf("a missing right was waited for for %s: %v", took, err)
		}
	})
}

func TestParseUNC(t *testing.T) {
	for text, want := range map[string]UNC{
		`\\files\certs`:                    {"files", "certs", "/"},
		`\\files\certs\`:                   {"files", "certs", "/"},
		`//files.corp.example/certs$/iis/`: {"files.corp.example", "certs$", "/iis"},
		`\\10.0.0.5\certs\a b\c`:           {"10.0.0.5", "certs", "/a b/c"},
	} {
		got, err := ParseUNC(text)
		if err != nil || got != want {
			t.Errorf("%s: got %+v (%v)", text, got, err)
		}
		if again, err := ParseUNC(got.String()); err != nil || again != got {
			t.Errorf("%s is printed as %s, which is read as %+v (%v)", text, got, again, err)
		}
	}
	for _, text := range []string{``, `\\files`, `\files\certs`, `C:\certs`, `/srv/certs`, `\\?\C:\certs`, `\\.\pipe\x`, `\\files@SSL\certs`,
		`\\files\certs\..\x`, `\\files\\certs`, `\\files\certs\a:b`, `\\files\certs\a.`, `\\\certs\x`, "\\\\files\\ce\nrts"} {
		if got, err := ParseUNC(text); err == nil {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestRemedies(t *testing.T) {
	for s, says := range map[status]string{
		ntlmBlocked:       "Kerberos is not spoken",
		accountRestricted: "Protected Users",
		pathNotCovered:    "Get-DfsnFolderTarget",
		dfsUnavailable:    "DFS",
		diskQuota:         "quota",
	} {
		if err := explain(nt(s)); !strings.Contains(err.Error(), says) || statusOf(err) != s {
			t.Errorf("%x: got %v", uint32(s), err)
		}
	}
}

func FuzzParseUNC(f *testing.F) {
	f.Add(`\\files\certs\a b`)
	f.Add(`//x/y`)
	f.Fuzz(func(t *testing.T, text string) {
		u, err := ParseUNC(text)
		if err != nil {
			return
		}
		if again, err := ParseUNC(u.String()); err != nil || again != u {
			t.Fatalf("%q was read as %+v, printed as %s, and that was read as %+v (%v)", text, u, u, again, err)
		}
		if _, err := inShare(u.Folder); err != nil {
			t.Fatal(err)
		}
	})
}
