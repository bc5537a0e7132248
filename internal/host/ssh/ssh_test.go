package ssh

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// login is a client's key.
type login struct {
	signer ssh.Signer
	pem    []byte
}

func newLogin(t testing.TB) login {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	must(t, err)
	signer, err := ssh.NewSignerFromKey(key)
	must(t, err)
	return login{signer, pem.EncodeToMemory(block)}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start starts a double that lets l in, after set has changed it.
func start(t testing.TB, l login, set func(*sshserver.Server)) *sshserver.Server {
	t.Helper()
	s := &sshserver.Server{User: "deploy", AuthorizedKeys: []ssh.PublicKey{l.signer.PublicKey()}, Exec: sshserver.Shell}
	if set != nil {
		set(s)
	}
	must(t, s.Start())
	t.Cleanup(func() { s.Close() })
	return s
}

// node is the double as farm.yaml describes it.
func node(t testing.TB, s *sshserver.Server) farm.Node {
	t.Helper()
	address, port, err := net.SplitHostPort(s.Addr())
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	return farm.Node{Name: "n1", Address: address, SSH: &farm.SSH{Port: n, User: "deploy", HostKeys: []string{s.HostKey()}}}
}

func open(t testing.TB, c Config) *Host {
	t.Helper()
	h, err := New(c)
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func (l login) config(n farm.Node) Config {
	return Config{Node: n, Key: FixedKey(farm.NewSecret(append([]byte(nil), l.pem...)))}
}

func TestDouble(t *testing.T) {
	for name, set := range map[string]func(*sshserver.Server){
		"stock":    nil,
		"rooted":   func(s *sshserver.Server) { s.Root = t.TempDir() },
		"no fsync": func(s *sshserver.Server) { s.NoFsync = true },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t)
			hosttest.Run(t, func(t *testing.T) hosttest.Bench {
				s := start(t, l, set)
				dir := filepath.ToSlash(t.TempDir())
				h := open(t, l.config(node(t, s)))
				if s.Root != "" {
					dir = "/deep/" + strings.ReplaceAll(t.Name(), "/", "_")
					must(t, h.Mkdir(t.Context(), dir, host.Attr{Mode: 0o755}))
				}
				return hosttest.Bench{Host: h, Dir: dir, Commands: s.Root == ""}
			})
		})
	}
}

func TestOneConnectionIsReusedAndOpenedAnew(t *testing.T) {
	l := newLogin(t)
	s := start(t, l, nil)
	h := open(t, l.config(node(t, s)))
	for range 3 {
		_, err := h.Run(t.Context(), []string{"true"}, nil)
		must(t, err)
		_, err = h.List(t.Context(), "/")
		must(t, err)
	}
	if got := s.Seen().Connections; got != 1 {
		t.Fatalf("%d connections", got)
	}
	l1 := h.line
	s.Cut()
	<-l1.dead
	_, err := h.List(t.Context(), "/")
	must(t, err)
	if got := s.Seen().Connections; got != 2 {
		t.Fatalf("%d connections", got)
	}
}

func TestUnreachable(t *testing.T) {
	l := newLogin(t)
	s := start(t, l, nil)
	h := open(t, l.config(node(t, s)))
	s.SetFaults(sshserver.Faults{Refuse: true})
	_, err := h.List(t.Context(), "/")
	is(t, err, host.ErrUnreachable)
	must(t, s.Close())
	_, err = h.List(t.Context(), "/")
	is(t, err, host.ErrUnreachable)
	s.SetFaults(sshserver.Faults{})
	must(t, s.Start()) // it comes back at the same address
	_, err = h.List(t.Context(), "/")
	must(t, err)
}

func is(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got %v, want %v", err, want)
	}
}

func TestAHangingServerHoldsNobody(t *testing.T) {
	for name, before := range map[string]bool{"before the handshake": true, "after": false} {
		t.Run(name, func(t *testing.T) {
			l := newLogin(t)
			s := start(t, l, nil)
			h := open(t, l.config(node(t, s)))
			if !before {
				_, err := h.List(t.Context(), "/")
				must(t, err)
			}
			s.SetFaults(sshserver.Faults{Hang: true})
			for _, do := range []func(context.Context) error{
				func(ctx context.Context) error { _, err := h.Read(ctx, "/etc/hostname"); return err },
				func(ctx context.Context) error { _, err := h.Run(ctx, []string{"true"}, nil); return err },
				func(ctx context.Context) error { _, err := h.Dial(ctx, "tcp", s.Addr()); return err },
			} {
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				begin := time.Now()
				err := do(ctx)
				cancel()
				is(t, err, host.ErrUnreachable)
				is(t, err, context.DeadlineExceeded)
				if took := time.Since(begin); took > connectTimeout/2 { // a busy machine is late, too
					t.Fatalf("it held its caller for %s", took)
				}
			}
		})
	}
}

// soon leaves a busy machine the time to answer.
const soon = time.Second

func TestKeepAliveEndsADeadLine(t *testing.T) {
	t.Parallel()
	l := newLogin(t)
	s := start(t, l, nil)
	c := l.config(node(t, s))
	c.KeepAlive = soon
	h := open(t, c)
	_, err := h.List(t.Context(), "/")
	must(t, err)
	line := h.line
	s.SetFaults(sshserver.Faults{Hang: true})
	<-line.dead
	s.SetFaults(sshserver.Faults{})
	_, err = h.List(t.Context(), "/")
	must(t, err)
}

func TestIdleLineIsClosed(t *testing.T) {
	t.Parallel()
	l := newLogin(t)
	s := start(t, l, nil)
	c := l.config(node(t, s))
	c.KeepAlive, c.Idle = soon, time.Millisecond
	h := open(t, c)
	_, err := h.List(t.Context(), "/")
	must(t, err)
	<-h.line.dead
}

func TestHostKey(t *testing.T) {
	l := newLogin(t)
	other, err := sshserver.NewKey()
	must(t, err)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	rsaHost, err := ssh.NewSignerFromKey(rsaKey)
	must(t, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	must(t, err)
	ecHost, err := ssh.NewSignerFromKey(ecKey)
	must(t, err)
	ed, err := sshserver.NewKey()
	must(t, err)
	all := []ssh.Signer{ed, ecHost, rsaHost}
	s := start(t, l, func(s *sshserver.Server) { s.HostKeys = all })
	for i, k := range all { // a server has several keys; the pinned one is asked for
		n := node(t, s)
		n.SSH.HostKeys = []string{sshserver.Authorized(k.PublicKey())}
		if _, err := open(t, l.config(n)).List(t.Context(), "/"); err != nil {
			t.Errorf("key %d: %v", i, err)
		}
	}
	only := start(t, l, func(s *sshserver.Server) { s.HostKeys = []ssh.Signer{ed} })
	for name, pinned := range map[string]ssh.Signer{"another key": other, "another type": ecHost} {
		n := node(t, only)
		n.SSH.HostKeys = []string{sshserver.Authorized(pinned.PublicKey())}
		_, err := open(t, l.config(n)).List(t.Context(), "/")
		if !errors.Is(err, host.ErrHostKey) || errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "pin") {
			t.Errorf("%s: %v", name, err)
		}
	}
	n := node(t, only)
	n.SSH.HostKeys = nil
	if _, err := New(l.config(n)); err == nil {
		t.Error("a node without pinned keys passed")
	}
}

func TestHostCAAndUserCertificate(t *testing.T) {
	l := newLogin(t)
	ca, err := sshserver.NewKey()
	must(t, err)
	sign := func(key ssh.PublicKey, kind uint32, principal string) *ssh.Certificate {
		c := &ssh.Certificate{Key: key, CertType: kind, ValidPrincipals: []string{principal}, ValidBefore: ssh.CertTimeInfinity}
		must(t, c.SignCert(rand.Reader, ca))
		return c
	}
	plain, err := sshserver.NewKey()
	must(t, err)
	for name, c := range map[string]struct {
		principal string
		good      bool
	}{"right name": {"127.0.0.1", true}, "other name": {"127.0.0.9", false}} {
		hostKey, err := ssh.NewCertSigner(sign(plain.PublicKey(), ssh.HostCert, c.principal), plain)
		must(t, err)
		s := start(t, l, func(s *sshserver.Server) {
			s.HostKeys, s.AuthorizedKeys, s.UserCAs = []ssh.Signer{hostKey}, nil, []ssh.PublicKey{ca.PublicKey()}
		})
		n := node(t, s)
		n.SSH.HostKeys, n.SSH.HostCAs = nil, []string{sshserver.Authorized(ca.PublicKey())}
		n.SSH.Certificate = sshserver.Authorized(sign(l.signer.PublicKey(), ssh.UserCert, "deploy"))
		_, err = open(t, l.config(n)).List(t.Context(), "/")
		if c.good != (err == nil) || (!c.good && !errors.Is(err, host.ErrHostKey)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLoginRefusedHasAHint(t *testing.T) {
	s := start(t, newLogin(t), nil)
	_, err := open(t, newLogin(t).config(node(t, s))).List(t.Context(), "/")
	is(t, err, host.ErrUnreachable)
	if !strings.Contains(err.Error(), "authorized_keys") {
		t.Fatal(err)
	}
}

func TestFaultsOfTheDisk(t *testing.T) {
	l := newLogin(t)
	s := start(t, l, func(s *sshserver.Server) { s.NoFsync = true })
	h := open(t, l.config(node(t, s)))
	name := filepath.ToSlash(t.TempDir()) + "/f"
	must(t, h.Write(t.Context(), name, []byte("old"), host.Attr{Mode: 0o600}))
	for _, f := range []sshserver.Faults{{DiskFull: true}, {Alter: sshserver.FlipWrites}} {
		s.SetFaults(f)
		if err := h.Write(t.Context(), name, []byte("new content"), host.Attr{Mode: 0o600}); err == nil || errors.Is(err, host.ErrUnreachable) {
			t.Fatalf("%+v: %v", f, err)
		}
		s.SetFaults(sshserver.Faults{})
		got, err := h.Read(t.Context(), name)
		must(t, err)
		left, err := h.List(t.Context(), filepath.ToSlash(filepath.Dir(name)))
		must(t, err)
		if string(got) != "old" || len(left) != 1 {
			t.Fatalf("%q and %d files are there", got, len(left))
		}
	}
}

func TestNoPosixRename(t *testing.T) {
	l := newLogin(t)
	s := start(t, l, func(s *sshserver.Server) { s.NoPosixRename = true })
	h := open(t, l.config(node(t, s)))
	name := filepath.ToSlash(t.TempDir()) + "/f"
	must(t, h.Write(t.Context(), name, []byte("first"), host.Attr{Mode: 0o600}))
	is(t, h.Write(t.Context(), name, []byte("second"), host.Attr{Mode: 0o600}), errors.ErrUnsupported)
}

func TestCommandLine(t *testing.T) {
	l := newLogin(t)
	lines := make(chan string, 8)
	s := start(t, l, func(s *sshserver.Server) {
		s.Exec = record(lines)
	})
	for become, want := range map[string]string{"": "nginx -s reload", "sudo": "sudo -n -- nginx -s reload"} {
		n := node(t, s)
		n.Become = become
		_, err := open(t, l.config(n)).Run(t.Context(), []string{"nginx", "-s", "reload"}, nil)
		must(t, err)
		if probe, got := <-lines, <-lines; !strings.HasPrefix(probe, "timeout ") || got != want {
			t.Fatalf("ran %q and %q, want %q", probe, got, want)
		}
	}
}

func TestPool(t *testing.T) {
	l := newLogin(t)
	s, gate := start(t, l, nil), start(t, l, nil)
	behind, jump := node(t, s), node(t, gate)
	jump.Name, behind.SSH.Jump = "gate", "gate"
	p := NewPool(Source{
		Key:  func(context.Context, string, farm.SecretRef) (farm.Secret, error) { return farm.NewSecret(l.pem), nil },
		Node: func(context.Context, string, string) (farm.Node, error) { return jump, nil },
	})
	defer p.Close()
	first, err := p.Host(t.Context(), "f", behind)
	must(t, err)
	_, err = first.List(t.Context(), "/")
	must(t, err)
	if s.Seen().Connections != 1 || gate.Seen().Connections != 1 {
		t.Fatal("the node was not reached through its jump host")
	}
	again, err := p.Host(t.Context(), "f", behind)
	must(t, err)
	elsewhere, err := p.Host(t.Context(), "other farm", behind)
	must(t, err)
	if again != first || elsewhere == first {
		t.Fatal("hosts are kept by farm and node")
	}
	changed := behind
	changed.Become = "sudo"
	next, err := p.Host(t.Context(), "f", changed)
	must(t, err)
	if next == first {
		t.Fatal("a changed node has its old host")
	}
	must(t, p.Close())
	if _, err = p.Host(t.Context(), "f", behind); err == nil {
		t.Fatal("a closed pool gave a host")
	}
}

func TestPoolSeesCircles(t *testing.T) {
	n := farm.Node{Name: "a", SSH: &farm.SSH{Jump: "b"}}
	p := NewPool(Source{Node: func(_ context.Context, _, name string) (farm.Node, error) {
		return farm.Node{Name: name, SSH: &farm.SSH{Jump: "a"}}, nil
	}})
	if _, err := p.Host(t.Context(), "f", n); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Fatal(err)
	}
}
