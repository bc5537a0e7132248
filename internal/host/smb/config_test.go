package smb_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/smb"
)

var private = host.Attr{Mode: 0o600}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, c smb.Config) *smb.Host {
	t.Helper()
	h, err := smb.New(c)
	must(t, err)
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func secret() farm.Secret { return farm.NewSecret([]byte("secret")) }

// A server that accepts and says nothing is given up at the context's end.
func TestSilentServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	h := open(t, smb.Config{Server: "127.0.0.1", Port: l.Addr().(*net.TCPAddr).Port, Share: "certs", User: "u", Password: secret(), Timeout: 50 * time.Millisecond})
	begin := time.Now()
	if _, err = h.Read(t.Context(), "/f"); !errors.Is(err, host.ErrUnreachable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestConfig(t *testing.T) {
	good := smb.Config{Server: "files.corp.example", Share: "certs$", User: "u", Password: secret()}
	if _, err := smb.New(good); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*smb.Config){
		"no server":   func(c *smb.Config) { c.Server = "" },
		"a path":      func(c *smb.Config) { c.Server = `files\certs` },
		"no share":    func(c *smb.Config) { c.Share = "" },
		"no user":     func(c *smb.Config) { c.User = "" },
		"no password": func(c *smb.Config) { c.Password = farm.Secret{} },
	} {
		wrong := good
		change(&wrong)
		if _, err := smb.New(wrong); err == nil {
			t.Errorf("%s passed", name)
		}
	}
}

func TestNamesAreChecked(t *testing.T) {
	h := open(t, smb.Config{Server: "127.0.0.1", Port: 1, Share: "certs", User: "u", Password: secret(),
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("it was dialed") }})
	for _, name := range []string{"/../f", "/a/../f", "/a\\..\\f", "/f:stream", "/a//f", "/f.", "/f ", "/*", "/\x00", "f"} {
		if err := h.Rename(t.Context(), "/f", name); err == nil || strings.Contains(err.Error(), "dialed") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}
