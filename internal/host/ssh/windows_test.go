package ssh

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// windowsNode is a double that behaves as OpenSSH for Windows, with or without the
// extensions that its versions have, and the way to it.
func windowsNode(t *testing.T, extensions bool, set func(*sshserver.Server, *farm.Node)) (*sshserver.Server, *Host) {
	t.Helper()
	l := newLogin(t)
	var n farm.Node
	s := start(t, l, func(s *sshserver.Server) {
		s.Root, s.Windows, s.NoFsync, s.NoPosixRename = t.TempDir(), true, !extensions, !extensions
		must(t, os.Mkdir(s.Root+"/C:", 0o700))
		n.Shell = host.Cmd
		if set != nil {
			set(s, &n)
		}
	})
	shell := n.Shell
	n = node(t, s)
	n.Shell = shell
	return s, open(t, l.config(n))
}

// both runs a test on servers with and without OpenSSH's extensions.
func both(t *testing.T, test func(t *testing.T, extensions bool)) {
	t.Run("with extensions", func(t *testing.T) { test(t, true) })
	t.Run("plain", func(t *testing.T) { test(t, false) })
}

func TestFilesOnWindows(t *testing.T) {
	both(t, func(t *testing.T, extensions bool) {
		hosttest.RunFiles(t, func(t *testing.T) hosttest.FilesBench {
			_, h := windowsNode(t, extensions, nil)
			must(t, h.Mkdir(t.Context(), "C:/x", host.Attr{}))
			return hosttest.FilesBench{Files: h, Mkdir: h.Mkdir, Dir: "C:/x", Gap: !extensions}
		})
	})
}

// A reader's lock is waited for: neither a replacement nor a removal is given up at
// once, nor does either wait longer than its call.
func TestReadersLockOnWindows(t *testing.T) {
	both(t, func(t *testing.T, extensions bool) {
		s, h := windowsNode(t, extensions, nil)
		write := func(ctx context.Context, text string) error {
			return h.Write(ctx, "C:/f", []byte(text), host.Attr{Mode: 0o600})
		}
		must(t, write(t.Context(), "old"))
		free := s.Hold("C:/f")
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := write(short, "new"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if got, err := h.Read(t.Context(), "C:/f"); err != nil || string(got) != "old" {
			t.Errorf("there is %q (%v)", got, err)
		}
		begin := time.Now()
		time.AfterFunc(200*time.Millisecond, free)
		if err := write(t.Context(), "new"); err != nil || time.Since(begin) < 200*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		begin = time.Now()
		time.AfterFunc(200*time.Millisecond, s.Hold("C:/f"))
		if err := h.Remove(t.Context(), "C:/f"); err != nil || time.Since(begin) < 200*time.Millisecond {
			t.Errorf("after %s: %v", time.Since(begin), err)
		}
		if left, err := h.List(t.Context(), "C:/"); err != nil || len(left) != 0 {
			t.Errorf("there are %v (%v)", left, err)
		}
	})
}

// The line is cut before each change of a replacement: the old content or the new is
// there, or the old one beside it, and the next write ends it.
func TestReplacementCutAnywhereOnWindows(t *testing.T) {
	both(t, func(t *testing.T, extensions bool) {
		for n := 0; ; n++ {
			s, h := windowsNode(t, extensions, nil)
			write := func(text string) error {
				return h.Write(t.Context(), "C:/f", []byte(text), host.Attr{Mode: 0o600})
			}
			must(t, write("old"))
			left := n
			s.SetFaults(sshserver.Faults{Before: func(string) error {
				if left--; left >= 0 {
					return nil
				}
				s.Cut()
				return fs.ErrPermission // nobody hears it
			}})
			err := write("new")
			s.SetFaults(sshserver.Faults{})
			live, _ := h.Read(t.Context(), "C:/f")
			aside, _ := h.Read(t.Context(), "C:/.f.certfarm-old")
			if !slices.Contains([]string{"old", "new"}, string(live)) && string(aside) != "old" {
				t.Fatalf("cut before change %d: %q, and %q aside", n, live, aside)
			}
			must(t, write("newer"))
			entries, listed := h.List(t.Context(), "C:/")
			must(t, listed)
			if now, _ := h.Read(t.Context(), "C:/f"); string(now) != "newer" || len(entries) != 1 {
				t.Fatalf("cut before change %d: %q among %v", n, now, entries)
			}
			if err == nil {
				return
			}
			if n == 20 {
				t.Fatal("it never ends")
			}
		}
	})
}

func TestWhatWindowsHasNot(t *testing.T) {
	_, h := windowsNode(t, true, nil)
	is(t, h.Link(t.Context(), "C:/a", "C:/b"), errors.ErrUnsupported)
	_, err := h.Readlink(t.Context(), "C:/b")
	is(t, err, errors.ErrUnsupported)
	is(t, h.Write(t.Context(), "C:/f", nil, host.Attr{Owner: "me"}), errors.ErrUnsupported)
	is(t, h.Mkdir(t.Context(), "C:/d", host.Attr{Group: "us"}), errors.ErrUnsupported)
}

// Commands get their words through the shells, and their status comes back.
func TestCommandsOnWindows(t *testing.T) {
	argv := []string{"C:/Program Files/Apache24/bin/httpd.exe", "-k", "restart", "-n", "Web & %PATH% ^ 'x'"}
	for shell, program := range map[string]string{host.Cmd: `C:\Program Files\Apache24\bin\httpd.exe`, host.PowerShell: argv[0]} {
		var got []string
		_, h := windowsNode(t, true, func(s *sshserver.Server, n *farm.Node) {
			n.Shell = shell
			s.Exec = sshserver.WindowsShell(shell, map[string]string{"PATH": "x"}, func(argv []string) (int, string) {
				got = argv
				return 7, "no such service"
			})
		})
		_, err := h.Run(t.Context(), argv, nil)
		exit, ok := errors.AsType[*host.ExitError](err)
		if want := append([]string{program}, argv[1:]...); !ok || exit.Status != 7 || !strings.Contains(string(exit.Output), "no such service") || !slices.Equal(got, want) {
			t.Errorf("%s: got %q and %v", shell, got, err)
		}
	}
}
