package smb_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/smb"
	"github.com/certfarm/certfarm/internal/host/smb/smbtest"
)

// config is for the share certs of a server.
func config(s *smbtest.Server) smb.Config {
	return smb.Config{Server: s.Host, Port: s.Port, Share: "certs", User: smbtest.User, Password: smbtest.Secret()}
}

func start(t testing.TB, clear bool) (*smbtest.Server, string) {
	t.Helper()
	folder := t.TempDir()
	return smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": folder}, Clear: clear}), folder
}

func TestContract(t *testing.T) {
	s, _ := start(t, false)
	h, n := open(t, config(s)), 0
	hosttest.RunFiles(t, func(t *testing.T) hosttest.FilesBench {
		n++
		dir := "/rule" + strconv.Itoa(n)
		must(t, h.Mkdir(t.Context(), dir, private))
		return hosttest.FilesBench{Files: h, Mkdir: h.Mkdir, Dir: dir}
	})
}

// 100 replaces while another session reads as fast as it can.
func TestNoTornReads(t *testing.T) {
	for range 3 {
		s, _ := start(t, false)
		reads, err := hammer(t, open(t, config(s)), open(t, config(s)))
		if err != nil && s.Died(t) { // Samba 4.17 does now and then, when a file is closed that is being replaced
			t.Logf("the server died: %v", err)
			continue
		}
		must(t, err)
		if reads < 20 {
			t.Errorf("only %d reads: that proves little", reads)
		}
		t.Logf("%d reads, none torn", reads)
		return
	}
	t.Skip("the server died of its own mistake three times")
}

// hammer counts good reads; a torn one fails the test whatever else happens.
func hammer(t *testing.T, writer, reader *smb.Host) (reads int, err error) {
	t.Helper()
	contents := [][]byte{bytes.Repeat([]byte("a"), 70<<10), bytes.Repeat([]byte("b"), 90<<10)}
	if err := writer.Write(t.Context(), "/www.pfx", contents[0], private); err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	stop, failed := make(chan struct{}), error(nil)
	wg.Go(func() {
		for ; failed == nil; reads++ {
			select {
			case <-stop:
				return
			default:
			}
			var got []byte
			if got, failed = reader.Read(t.Context(), "/www.pfx"); failed == nil && !bytes.Equal(got, contents[0]) && !bytes.Equal(got, contents[1]) {
				t.Errorf("torn: %d bytes", len(got))
			}
		}
	})
	for i := range 100 {
		if err = writer.Write(t.Context(), "/www.pfx", contents[i%2], private); err != nil {
			break
		}
	}
	close(stop)
	wg.Wait()
	return reads, errors.Join(err, failed)
}

func TestLogin(t *testing.T) {
	s, _ := start(t, false)
	for name, c := range map[string]struct {
		change func(*smb.Config)
		says   string
	}{
		"wrong password": {func(c *smb.Config) { c.Password = farm.NewSecret([]byte("wrong")) }, "the user name or the password is wrong"},
		"wrong user":     {func(c *smb.Config) { c.User = "nobody-here" }, "the user name or the password is wrong"},
		"no such share":  {func(c *smb.Config) { c.Share = "none" }, "no such share"},
		"no server":      {func(c *smb.Config) { c.Port = 1 }, "is port 1 open from here?"},
	} {
		wrong := config(s)
		c.change(&wrong)
		_, err := open(t, wrong).List(t.Context(), "/")
		if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), smbtest.Password) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// What is not encrypted does not leave this machine.
func TestNoEncryption(t *testing.T) {
	s, folder := start(t, true)
	err := open(t, config(s)).Write(t.Context(), "/f", []byte("key"), private)
	if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "EncryptData") {
		t.Errorf("got %v", err)
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) > 0 {
		t.Errorf("there is %v (%v)", left, err)
	}
}

func TestLostSession(t *testing.T) {
	s, _ := start(t, false)
	h := open(t, config(s))
	must(t, h.Write(t.Context(), "/f", []byte("1"), private))
	s.Cut(t, "certs")
	must(t, h.Write(t.Context(), "/f", []byte("2"), private))
	var err error
	for range 10 { // smbd hears of the cut later: one within a rename is told of, and not mended
		must(t, h.Write(t.Context(), "/f", []byte("2"), private))
		s.Cut(t, "certs")
		if err = h.Rename(t.Context(), "/f", "/g"); !errors.Is(err, host.ErrUnreachable) {
			break
		}
	}
	must(t, err)
	must(t, h.Close())
	got, err := h.Read(t.Context(), "/g")
	if err != nil || string(got) != "2" {
		t.Fatalf("got %q (%v)", got, err)
	}
	s.Withdraw(t, "certs")
	for until := time.Now().Add(20 * time.Second); err == nil && time.Now().Before(until); { // smbd hears of it later
		_, err = h.Read(t.Context(), "/g")
	}
	if !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "no such share") {
		t.Errorf("a share that is gone gives %v", err)
	}
}

// The connection breaks in the middle of a write, at any byte: what is there
// stays whole, and the next call goes on.
func TestCutAnywhere(t *testing.T) {
	s, folder := start(t, false)
	old, next := bytes.Repeat([]byte("a"), 20<<10), bytes.Repeat([]byte("b"), 20<<10)
	for n := 0; ; n++ {
		must(t, os.WriteFile(filepath.Join(folder, "f"), old, 0o666))
		must(t, os.Chmod(filepath.Join(folder, "f"), 0o666))
		c, cut := config(s), false
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, address)
			return &breaking{Conn: raw, left: n, broke: &cut}, err
		}
		err := open(t, c).Write(t.Context(), "/f", next, private)
		got, readErr := os.ReadFile(filepath.Join(folder, "f"))
		must(t, readErr)
		if !bytes.Equal(got, old) && !bytes.Equal(got, next) || err == nil && !bytes.Equal(got, next) {
			t.Fatalf("after %d messages there are %d bytes (%v)", n, len(got), err)
		}
		if !cut {
			must(t, err)
			break
		}
		if !errors.Is(err, host.ErrUnreachable) {
			t.Fatalf("after %d messages: got %v", n, err)
		}
	}
	h := open(t, config(s))
	must(t, h.Write(t.Context(), "/f", next, private))
	if left, err := h.List(t.Context(), "/"); err != nil || len(left) != 1 {
		t.Errorf("there is %v (%v)", left, err)
	}
}

// A rename is not tried twice: whether it was done is not known, and it is never
// said that the file was not there.
func TestRenameCutAnywhere(t *testing.T) {
	s, _ := start(t, false)
	for n := 0; ; n++ {
		c, line := config(s), (*breaking)(nil)
		c.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			raw, err := new(net.Dialer).DialContext(ctx, network, address)
			if line != nil {
				return raw, err
			}
			line = &breaking{Conn: raw, left: 1000, broke: new(bool)}
			return line, err
		}
		h := open(t, c)
		must(t, h.Remove(t.Context(), "/g"))
		must(t, h.Write(t.Context(), "/f", []byte("x"), private))
		line.left = n
		err := h.Rename(t.Context(), "/f", "/g")
		broke := *line.broke
		_, there := h.Read(t.Context(), "/f")
		_, moved := h.Read(t.Context(), "/g")
		if (there == nil) == (moved == nil) || err == nil && moved != nil || err != nil && !errors.Is(err, host.ErrUnreachable) {
			t.Fatalf("after %d messages: %v, %v, %v", n, err, there, moved)
		}
		if !broke {
			break
		}
	}
}

// breaking is a connection that ends after some messages.
type breaking struct {
	net.Conn
	left  int
	broke *bool
}

func (b *breaking) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		*b.broke = true
		b.Close()
		return 0, net.ErrClosed
	}
	return b.Conn.Write(p)
}

func TestDiskFull(t *testing.T) {
	small := t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", small).CombinedOutput(); err != nil {
		t.Skipf("no small disk can be mounted: %s", out)
	}
	t.Cleanup(func() { _ = syscall.Unmount(small, syscall.MNT_DETACH) })
	s := smbtest.Start(t, smbtest.Options{Shares: map[string]string{"certs": small}})
	h := open(t, config(s))
	old := bytes.Repeat([]byte("a"), 100<<10)
	must(t, h.Write(t.Context(), "/f", old, private))
	err := h.Write(t.Context(), "/f", bytes.Repeat([]byte("b"), 400<<10), private)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "make room") {
		t.Errorf("got %v", err)
	}
	if got, err := h.Read(t.Context(), "/f"); err != nil || !bytes.Equal(got, old) {
		t.Errorf("there are %d bytes (%v)", len(got), err)
	}
	if left, err := h.List(t.Context(), "/"); err != nil || len(left) != 1 {
		t.Errorf("there is %v (%v)", left, err)
	}
}

func TestNoRight(t *testing.T) {
	s, folder := start(t, false)
	must(t, os.Mkdir(filepath.Join(folder, "closed"), 0o500)) // root's
	h := open(t, config(s))
	for _, err := range []error{
		h.Write(t.Context(), "/closed/f", nil, private),
		h.Mkdir(t.Context(), "/closed/d/e", private),
	} {
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "Modify") {
			t.Errorf("got %v", err)
		}
	}
	if err := h.Write(t.Context(), "/f", nil, host.Attr{Owner: "root"}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("an owner gives %v", err)
	}
}
