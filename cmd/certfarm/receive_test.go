//go:build unix

package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gossh "golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// A receiving is a node whose login has `certfarm receive` as its forced command, and
// its SSH server.
type receiving struct {
	t       *testing.T
	root    string
	server  *sshserver.Server
	line    *ssh.Host
	started chan *exec.Cmd // every receiver that was started, if somebody wants to know
}

func newReceiving(t *testing.T) *receiving {
	t.Helper()
	r := &receiving{t: t, root: t.TempDir(), started: make(chan *exec.Cmd, 64)}
	real, err := filepath.EvalSymlinks(r.root)
	fine(t, err)
	r.root = real
	for _, folder := range []string{"tls", "store"} {
		fine(t, os.Mkdir(filepath.Join(r.root, folder), 0o755))
	}
	fine(t, os.WriteFile(r.at("reload"), []byte("#!/bin/sh\nread go < "+r.at("fifo")+"\necho $go >> "+r.at("reloads")+"\n"), 0o755))
	fine(t, exec.Command("mkfifo", r.at("fifo")).Run())
	fine(t, os.WriteFile(r.at("policy.yaml"), fmt.Appendf(nil, `node: web1
names: [www.example.org]
kinds: [files]
folders: [%q, %q]
commands: {reload: [%q], none: ["true"]}
`, r.at("tls"), r.at("store"), r.at("reload")), 0o644))
	program, err := exec.LookPath("certfarm")
	fine(t, err)
	r.server = &sshserver.Server{Exec: func(_ context.Context, asked string, stdin io.Reader, out io.Writer) int {
		c := exec.Command(program, "receive", "--policy", r.at("policy.yaml"), "--state", r.at("state"))
		c.Env = append(os.Environ(), "SSH_ORIGINAL_COMMAND="+asked)
		c.Stdin, c.Stdout, c.Stderr = stdin, out, out
		if err := c.Start(); err != nil {
			return 127
		}
		select {
		case r.started <- c:
		default:
		}
		_ = c.Wait()
		return c.ProcessState.ExitCode()
	}}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	fine(t, err)
	block, err := gossh.MarshalPrivateKey(key, "")
	fine(t, err)
	signer, err := gossh.NewSignerFromKey(key)
	fine(t, err)
	r.server.AuthorizedKeys = []gossh.PublicKey{signer.PublicKey()}
	fine(t, r.server.Start())
	t.Cleanup(func() { r.server.Close() })
	address, text, err := net.SplitHostPort(r.server.Addr())
	fine(t, err)
	port, err := strconv.Atoi(text)
	fine(t, err)
	r.line, err = ssh.New(ssh.Config{
		Node: farm.Node{Name: "web1", Address: address, SSH: &farm.SSH{Port: port, User: "certfarm", HostKeys: []string{r.server.HostKey()}, Receiver: true}},
		Key:  ssh.FixedKey(farm.NewSecret(pem.EncodeToMemory(block))),
	})
	fine(t, err)
	t.Cleanup(func() { r.line.Close() })
	return r
}

func fine(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (r *receiving) at(name string) string { return filepath.Join(r.root, name) }

// target is the deployer by a lease; its server is reloaded by a command.
func (r *receiving) target(epoch int64, reload string) *remote.Deployer {
	return remote.New(remote.Setup{
		Caller: remote.Line{Host: r.line}, Farm: "shop", Node: "web1", Lane: "node web1", Target: "shop/files@web1", Kind: "files",
		Options: fmt.Appendf(nil, `{"pem":%q,"store":%q,"reload":[%q]}`, r.at("tls/shop.pem"), r.at("store"), reload),
		Lease:   deploy.Lease{Owner: "ctl-one", Epoch: epoch, Nonce: "n"},
	})
}

func (r *receiving) stage(d deploy.Deployer, names ...string) (string, []deploy.Receipt, error) {
	b, err := deploy.Throwaway(names, farm.EC256, time.Now())
	fine(r.t, err)
	receipt, err := d.Stage(r.t.Context(), deploy.Stage{Site: "shop", Names: names, Bundles: []farm.Bundle{b}, Epoch: 1})
	return b.Leaf, []deploy.Receipt{receipt}, err
}

func (r *receiving) holds(d deploy.Deployer, leaf string) {
	r.t.Helper()
	in, err := d.Inspect(r.t.Context())
	if err != nil || !slices.Equal(in.Leaves, []string{leaf}) {
		r.t.Fatalf("holds %+v (%v), want %s", in, err, farm.Short(leaf))
	}
}

// The forced command takes calls, and nothing that a client asks SSH to run.
func TestReceiver(t *testing.T) {
	r := newReceiving(t)
	d := r.target(10, "true")
	first, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	fine(t, d.Activate(t.Context(), rs))
	r.holds(d, first)
	second, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	fine(t, d.Activate(t.Context(), rs))
	r.holds(d, second)
	fine(t, d.Restore(t.Context(), rs))
	r.holds(d, first)
	fine(t, d.Discard(t.Context(), rs[0]))
	if _, _, err := r.stage(d, "www.example.net"); !errors.Is(err, remote.ErrDenied) || !strings.Contains(err.Error(), "names:") {
		t.Errorf("a name outside: %v", err)
	}
	if _, _, err := r.stage(r.target(9, "true"), "www.example.org"); !errors.Is(err, remote.ErrStale) {
		t.Errorf("an epoch before: %v", err)
	}
	if _, err := r.line.Run(t.Context(), []string{"touch", r.at("tls/touched")}, nil); err == nil {
		t.Errorf("a command passed")
	}
	if _, err := os.Stat(r.at("tls/touched")); err == nil {
		t.Errorf("a command was run")
	}
	log, err := os.ReadFile(r.at("state/node.log"))
	fine(t, err)
	for _, want := range []string{"www.example.net", "is lower than", "tls/touched", "ctl-one"} {
		if !strings.Contains(string(log), want) {
			t.Errorf("the log has no %q: %s", want, log)
		}
	}
	fine(t, os.Chmod(r.at("policy.yaml"), 0o666))
	if _, err := d.Inspect(t.Context()); !errors.Is(err, remote.ErrDenied) {
		t.Errorf("a policy that everybody may write: %v", err)
	}
}

// What was begun is ended on the node, although the line is cut and nobody waits.
func TestReceiverEndsWhatItBegan(t *testing.T) {
	r := newReceiving(t)
	d := r.target(10, r.at("reload"))
	leaf, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	gone := make(chan error, 1)
	go func() { gone <- d.Activate(t.Context(), rs) }()
	reload := r.reloading() // it waits there
	r.server.Cut()
	if err := <-gone; !errors.Is(err, host.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	_, err = reload.WriteString("done\n")
	fine(t, errors.Join(err, reload.Close()))
	r.holds(r.target(11, "true"), leaf)
	quiet := r.target(11, "true") // it waits for the lock, so for the reload
	_, rs, err = r.stage(quiet, "www.example.org")
	fine(t, err)
	fine(t, quiet.Discard(t.Context(), rs[0]))
	if text, err := os.ReadFile(r.at("reloads")); string(text) != "done\n" {
		t.Fatalf("reloads: %q (%v)", text, err)
	}
}

// A receiver that is killed in the middle has forgotten nothing.
func TestReceiverKilled(t *testing.T) {
	r := newReceiving(t)
	d := r.target(10, r.at("reload"))
	leaf, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	r.drop()
	gone := make(chan error, 1)
	go func() { gone <- d.Activate(t.Context(), rs) }()
	reload := r.reloading()
	fine(t, (<-r.started).Process.Kill())
	fine(t, reload.Close())
	if err := <-gone; !errors.Is(err, host.ErrUnreachable) {
		t.Fatalf("got %v", err)
	}
	if _, _, err := r.stage(r.target(9, "true"), "www.example.org"); !errors.Is(err, remote.ErrStale) {
		t.Fatalf("an epoch before: %v", err)
	}
	next := r.target(11, "true")
	fine(t, next.Activate(t.Context(), rs))
	r.holds(next, leaf)
}

// A real nginx behind a receiver: started, reloaded and put back by the node itself.
func TestReceiverWithNginx(t *testing.T) {
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		t.Skip("there is no nginx here")
	}
	r := newReceiving(t)
	short, err := os.MkdirTemp("", "cf") //nolint:usetesting // t.TempDir is too long for a socket
	fine(t, err)
	t.Cleanup(func() { os.RemoveAll(short) })
	socket, conf := filepath.Join(short, "s"), r.at("nginx.conf")
	fine(t, os.WriteFile(conf, fmt.Appendf(nil, `pid %[1]s/nginx.pid; error_log %[1]s/error.log; worker_processes 1;
events { worker_connections 64; }
http {
	access_log off; client_body_temp_path %[1]s/b; proxy_temp_path %[1]s/p; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
	server { listen unix:%[2]s ssl; ssl_certificate %[1]s/tls/shop.pem; ssl_certificate_key %[1]s/tls/shop.pem; return 204; }
}
`, r.root, socket), 0o644))
	commands := map[string][]string{"test": {nginx, "-c", conf, "-t"}, "reload": {nginx, "-c", conf, "-s", "reload"}, "start": {nginx, "-c", conf}}
	options, err := json.Marshal(map[string]any{
		"pem": r.at("tls/shop.pem"), "store": r.at("store"), "test": commands["test"], "reload": commands["reload"], "start": commands["start"],
	})
	fine(t, err)
	list, err := json.Marshal(commands)
	fine(t, err)
	fine(t, os.WriteFile(r.at("policy.yaml"), fmt.Appendf(nil, "node: web1\nnames: [www.example.org]\nkinds: [nginx]\nfolders: [%q, %q]\ncommands: %s\n", r.at("tls"), r.at("store"), list), 0o644))
	d := remote.New(remote.Setup{
		Caller: remote.Line{Host: r.line}, Node: "web1", Lane: "node web1", Kind: "nginx", Options: options, Lease: deploy.Lease{Owner: "ctl-one", Epoch: 1, Nonce: "n"},
	})
	t.Cleanup(func() { // the next test may have the same processor to itself
		_ = exec.Command(nginx, "-c", conf, "-s", "stop").Run()
		for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
			if _, err := os.Stat(r.at("nginx.pid")); err != nil {
				return
			}
		}
	})
	serves := func(leaf string) {
		t.Helper()
		var got string
		for until := time.Now().Add(20 * time.Second); got != leaf; time.Sleep(20 * time.Millisecond) {
			c, err := tls.Dial("unix", socket, &tls.Config{InsecureSkipVerify: true, ServerName: "www.example.org"}) //nolint:gosec // which leaf it is is what is asked
			if err == nil {
				got = farm.Fingerprint(c.ConnectionState().PeerCertificates[0].Raw)
				c.Close()
			}
			if time.Now().After(until) {
				t.Fatalf("serves %s (%v), want %s", got, err, leaf)
			}
		}
	}
	first, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	fine(t, d.Activate(t.Context(), rs))
	serves(first)
	second, rs, err := r.stage(d, "www.example.org")
	fine(t, err)
	fine(t, d.Activate(t.Context(), rs))
	serves(second)
	fine(t, d.Restore(t.Context(), rs))
	serves(first)
	fine(t, os.WriteFile(conf, []byte("nonsense"), 0o644))
	if _, _, err := r.stage(d, "www.example.org"); !errors.Is(err, deploy.ErrTest) {
		t.Errorf("a configuration that does not pass: %v", err)
	}
	fine(t, os.WriteFile(conf, fmt.Appendf(nil, "pid %s/nginx.pid; events {}", r.root), 0o644)) // to stop it
}

// reloading waits until the server is being reloaded, and gives what it waits for.
func (r *receiving) reloading() *os.File {
	r.t.Helper()
	f, err := os.OpenFile(r.at("fifo"), os.O_WRONLY, 0) // it opens when somebody reads
	fine(r.t, err)
	return f
}

// drop forgets the receivers that were started so far.
func (r *receiving) drop() {
	for {
		select {
		case <-r.started:
		default:
			return
		}
	}
}
