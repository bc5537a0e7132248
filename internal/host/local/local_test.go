package local

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

func TestLocal(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("only on systems other than Windows: symlinks and modes are not Windows' own")
	}
	_, noShell := exec.LookPath("sh")
	hosttest.Run(t, func(t *testing.T) hosttest.Bench {
		return hosttest.Bench{Host: New(Config{}), Dir: filepath.ToSlash(t.TempDir()), Commands: noShell == nil}
	})
}

func TestWriteMendsWhatACrashLeft(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(beside(name), []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := New(Config{}).Write(t.Context(), name, []byte("whole"), host.Attr{Mode: 0o600}); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Dir(name)); len(left) != 1 {
		t.Fatalf("%d files are there", len(left))
	}
}

func TestOwnerIsKept(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may give files away")
	}
	name := filepath.Join(t.TempDir(), "f")
	h := New(Config{})
	for _, c := range []struct {
		attr     host.Attr
		uid, gid int
	}{
		{host.Attr{Mode: 0o600, Owner: "12", Group: "34"}, 12, 34},
		{host.Attr{Mode: 0o600}, 12, 34},
		{host.Attr{Mode: 0o600, Owner: "root"}, 0, 34},
	} {
		if err := h.Write(t.Context(), name, nil, c.attr); err != nil {
			t.Fatal(err)
		}
		if uid, gid := ownerOf(name); uid != c.uid || gid != c.gid {
			t.Fatalf("%+v: got %d:%d", c.attr, uid, gid)
		}
	}
	if err := h.Write(t.Context(), name, nil, host.Attr{Owner: "no such user"}); err == nil {
		t.Fatal("an unknown owner passed")
	}
}
