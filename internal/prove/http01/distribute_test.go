package http01_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/host/sshserver"
	"github.com/certfarm/certfarm/internal/prove"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/prove/provetest"
)

func challenge(n int) farm.Challenge {
	token := fmt.Sprintf("token-%037d", n)
	return farm.Challenge{Type: "http-01", Name: "www.farm.test", Token: token, Value: token + ".thumb"}
}

func opens(h host.Host) func(context.Context) (host.Host, error) {
	return func(context.Context) (host.Host, error) { return h, nil }
}

// The file is served by a web server that reads the webroot, at every node.
func TestDistribute(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("only on systems other than Windows: the modes are not Windows' own")
	}
	var places []http01.Place
	var servers []string
	for i := range 3 {
		root := t.TempDir()
		s := httptest.NewServer(http.FileServer(http.Dir(root)))
		t.Cleanup(s.Close)
		servers = append(servers, s.URL)
		places = append(places, http01.Place{Name: fmt.Sprint("web", i), Webroot: filepath.ToSlash(root), Host: opens(local.New(local.Config{}))})
	}
	places[2].Host = opens(overSSH(t))
	provetest.Run(t, provetest.Suite{
		New:       func(*testing.T) prove.Solver { return http01.Distribute{Nodes: places} },
		Challenge: challenge,
		Seen: func(t *testing.T, c farm.Challenge) bool {
			seen := 0
			for _, s := range servers {
				if status, body := get(t, s+http01.Path+c.Token); status == http.StatusOK && body == c.Value {
					seen++
				}
			}
			if seen != 0 && seen != len(servers) {
				t.Errorf("%d of %d nodes answer", seen, len(servers))
			}
			return seen > 0
		},
	})
	for _, p := range places {
		if left, err := os.ReadDir(p.Webroot); err != nil || len(left) != 0 {
			t.Errorf("left in the webroot: %v, %v", left, err)
		}
	}
}

func overSSH(t *testing.T) host.Host {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	signer, err := xssh.NewSignerFromKey(key)
	must(t, err)
	block, err := xssh.MarshalPrivateKey(key, "")
	must(t, err)
	s := &sshserver.Server{User: "deploy", AuthorizedKeys: []xssh.PublicKey{signer.PublicKey()}}
	must(t, s.Start())
	t.Cleanup(func() { s.Close() })
	address, port, err := net.SplitHostPort(s.Addr())
	must(t, err)
	n, err := strconv.Atoi(port)
	must(t, err)
	h, err := ssh.New(ssh.Config{
		Node: farm.Node{Name: "web2", Address: address, SSH: &farm.SSH{Port: n, User: "deploy", HostKeys: []string{s.HostKey()}}},
		Key:  ssh.FixedKey(farm.NewSecret(pem.EncodeToMemory(block))),
	})
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

// newNode is a node in memory with an empty webroot, /www.
func newNode(t *testing.T, folders ...string) *hosttest.Mem {
	t.Helper()
	m := &hosttest.Mem{}
	for _, f := range append([]string{"/www"}, folders...) {
		must(t, m.Mkdir(t.Context(), f, host.Attr{Mode: 0o755}))
	}
	return m
}

const challenges = "/www/.well-known/acme-challenge"

func TestDistributeMakesWhatItTakesAway(t *testing.T) {
	t.Parallel()
	for name, folders := range map[string][]string{
		"nothing is there": nil,
		"well-known":       {"/www/.well-known"},
		"well-known full":  {"/www/.well-known/pki"},
		"all is there":     {challenges},
	} {
		m := newNode(t, folders...)
		before := m.Tree()
		d := http01.Distribute{Nodes: []http01.Place{{Name: "web1", Webroot: "/www", Host: opens(m)}}}
		c, other := challenge(1), challenge(2)
		_, err := d.Present(t.Context(), c)
		must(t, err)
		_, err = d.Present(t.Context(), other)
		must(t, err)
		if mode := m.Attr(path.Join(challenges, c.Token)).Mode; mode != 0o644 {
			t.Errorf("%s: the file's mode is %v", name, mode)
		}
		if mode := m.Attr(challenges).Mode; mode != 0o755 {
			t.Errorf("%s: the folder's mode is %v", name, mode)
		}
		must(t, d.CleanUp(t.Context(), c, nil))
		if got := m.Tree()[path.Join(challenges, other.Token)]; got != other.Value {
			t.Errorf("%s: the other answer is %q", name, got)
		}
		must(t, d.CleanUp(t.Context(), other, nil))
		if after := m.Tree(); !maps.Equal(after, before) {
			t.Errorf("%s: left %v, before %v", name, after, before)
		}
	}
}

// Wherever the line is cut, cleaning up with nothing but the challenge leaves
// nothing that was not there before, but for folders whose mark was never
// written.
func TestDistributeCutOffAnywhere(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{false, true} {
		for n := range 40 {
			m := newNode(t)
			f := &hosttest.Faulty{Linked: m}
			d := http01.Distribute{Nodes: []http01.Place{{Name: "web1", Webroot: "/www", Host: opens(f)}}}
			c := challenge(1)
			f.DieAfter(n, lost)
			_, presentErr := d.Present(t.Context(), c)
			cleanErr := d.CleanUp(t.Context(), c, nil)
			f.Mend()
			must(t, d.CleanUp(t.Context(), c, nil))
			for name, content := range m.Tree() {
				if content != "/" {
					t.Errorf("cut after %d (%v): %s is left", n, lost, name)
				}
			}
			if presentErr == nil && len(m.Tree()) != 2 {
				t.Errorf("cut after %d (%v): left %v", n, lost, m.Tree())
			}
			if n == 39 && (presentErr != nil || cleanErr != nil) {
				t.Errorf("more than %d calls are made: %v, %v", n, presentErr, cleanErr)
			}
		}
	}
}

// Answers come and go in one webroot at once: an answer that is reported as put
// up is there until it is taken away.
func TestDistributeTogether(t *testing.T) {
	t.Parallel()
	m := newNode(t)
	d := http01.Distribute{Nodes: []http01.Place{{Name: "web1", Webroot: "/www", Host: opens(m)}}}
	var wg sync.WaitGroup
	var refused atomic.Int32
	for worker := range 4 {
		wg.Go(func() {
			for i := range 200 {
				c := challenge(worker*1000 + i)
				if _, err := d.Present(t.Context(), c); err != nil {
					refused.Add(1) // it says so, and would be tried again
					continue
				}
				if got, err := m.Read(t.Context(), path.Join(challenges, c.Token)); err != nil || string(got) != c.Value {
					t.Errorf("the answer is gone: %q, %v", got, err)
				}
				if err := d.CleanUp(t.Context(), c, nil); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := refused.Load(); n > 400 {
		t.Errorf("%d of 800 answers were refused", n)
	}
	must(t, d.CleanUp(t.Context(), challenge(1), nil))
	for name := range m.Tree() {
		if strings.Contains(name, "token") {
			t.Errorf("%s is left", name)
		}
	}
}

func TestDistributeNamesEachNode(t *testing.T) {
	t.Parallel()
	good, full, altered := newNode(t), newNode(t), newNode(t)
	down := errors.New("connection refused")
	unreachable := func(context.Context) (host.Host, error) { return nil, fmt.Errorf("%w: %w", host.ErrUnreachable, down) }
	silent := func(context.Context) bool { return true }
	places := []http01.Place{
		{Name: "good", Webroot: "/www", Host: opens(good)},
		{Name: "full", Webroot: "/www", Host: opens(&hosttest.Faulty{Linked: full, FullAt: 1})},
		{Name: "altered", Webroot: "/www", Host: opens(&hosttest.Faulty{Linked: altered, Alter: func(string, []byte) []byte { return []byte("x") }})},
		{Name: "nowhere", Webroot: "/srv/www", Host: opens(newNode(t))},
		{Name: "none", Host: opens(newNode(t))},
		{Name: "down", Webroot: "/www", Host: unreachable},
		{Name: "filesonly", Webroot: "/www", Host: opens(struct{ host.Host }{newNode(t)})},
	}
	_, err := http01.Distribute{Nodes: places}.Present(t.Context(), challenge(1))
	for _, want := range []string{
		"node full: ", "node altered: ", "something else", "node nowhere: there is no folder /srv/www", "node none: it has no webroot",
		"node down: ", "node filesonly: ", "cannot make folders",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
	if err != nil && strings.Contains(err.Error(), "node good") {
		t.Errorf("a good node is named: %v", err)
	}
	if len(good.Tree()) != 2 {
		t.Errorf("left on the good node: %v", good.Tree())
	}

	places = []http01.Place{places[0], {Name: "down", Webroot: "/www", Host: unreachable, Silent: silent}}
	d := http01.Distribute{Nodes: places}
	receipt, err := d.Present(t.Context(), challenge(1))
	must(t, err)
	must(t, d.CleanUp(t.Context(), challenge(1), receipt))
	if err := d.CleanUp(t.Context(), challenge(1), nil); !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "node down") {
		t.Errorf("clean up without a receipt, with a node that is down: %v", err)
	}
	if _, err := (http01.Distribute{Nodes: places[1:]}).Present(t.Context(), challenge(1)); !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("no node is left, and the error is %v", err)
	}
}

// Every path that is touched lies in the challenge folder or is a folder above
// it, and Windows' drive letters pass as they are.
func TestDistributePaths(t *testing.T) {
	t.Parallel()
	r := &recorder{}
	d := http01.Distribute{Nodes: []http01.Place{{Name: "iis1", Webroot: "C:/inetpub/wwwroot", Host: opens(r)}}}
	c := challenge(1)
	_, err := d.Present(t.Context(), c)
	must(t, err)
	must(t, d.CleanUp(t.Context(), c, nil))
	want := "C:/inetpub/wwwroot/.well-known/acme-challenge/" + c.Token
	if !slices.Contains(r.paths, want) {
		t.Errorf("%s is not among %v", want, r.paths)
	}
	for _, p := range r.paths {
		if !strings.HasPrefix(p, "C:/inetpub/wwwroot") {
			t.Errorf("it touches %s", p)
		}
	}
	r.paths = nil
	bad := farm.Challenge{Type: "http-01", Token: "../../../../../../../etc/cron.d/x", Value: "../../../../../../../etc/cron.d/x.y"}
	if _, err := d.Present(t.Context(), bad); err == nil || d.CleanUp(t.Context(), bad, nil) == nil || len(r.paths) > 0 {
		t.Errorf("a token that is a path: %v, touched %v", err, r.paths)
	}
}

// recorder is a Windows host with one file.
type recorder struct {
	host.Host
	paths []string
	data  []byte
	name  string
}

func (r *recorder) List(_ context.Context, name string) ([]host.Entry, error) {
	r.paths = append(r.paths, name)
	if path.Dir(r.name) != name {
		return nil, nil
	}
	return []host.Entry{{Name: path.Base(r.name)}}, nil
}

func (r *recorder) Write(_ context.Context, name string, data []byte, _ host.Attr) error {
	r.paths, r.data, r.name = append(r.paths, name), data, name
	return nil
}

func (r *recorder) Read(_ context.Context, name string) ([]byte, error) {
	r.paths = append(r.paths, name)
	if name != r.name {
		return nil, fs.ErrNotExist
	}
	return r.data, nil
}

func (r *recorder) Remove(_ context.Context, name string) error {
	r.paths = append(r.paths, name)
	return nil
}

func TestStateless(t *testing.T) {
	t.Parallel()
	s := http01.Stateless{Thumbprint: "thumb"}
	c := challenge(1)
	for range 2 { // every call may be repeated, in any process
		r, err := s.Present(t.Context(), c)
		must(t, err)
		ready, err := http01.Stateless{}.Ready(t.Context(), c, r)
		if r == nil || err != nil || !ready {
			t.Errorf("receipt %v, ready %v, %v", r, ready, err)
		}
		must(t, http01.Stateless{}.CleanUp(t.Context(), c, nil))
	}
	if _, err := (http01.Stateless{Thumbprint: "other"}).Present(t.Context(), c); err == nil || !strings.Contains(err.Error(), "another account") {
		t.Errorf("the rule of another account: %v", err)
	}
	for _, token := range []string{"", "short", "../../../../../../etc/passwd", "aaaaaaaaaaaaaaaaaaaaaaaaaaa\n"} {
		if _, err := s.Present(t.Context(), farm.Challenge{Type: "http-01", Token: token, Value: token + ".thumb"}); err == nil {
			t.Errorf("the token %q is accepted", token)
		}
	}
	token, want := http01.StatelessQuestion("seed", "thumb")
	if _, err := s.Present(t.Context(), farm.Challenge{Type: "http-01", Token: token, Value: want}); err != nil {
		t.Errorf("the question of a preflight: %v", err)
	}
}
