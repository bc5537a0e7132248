package controller_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

func (b *bed) node(name string) *lab.Node {
	b.t.Helper()
	n, err := b.Node(name)
	must(b.t, err)
	return n
}

func (b *bed) set(name string, kind lab.Kind) {
	b.t.Helper()
	must(b.t, b.node(name).Set(lab.Fault{Kind: kind}))
}

// serves is what a node serves now; empty: nothing.
func (b *bed) serves(name string) string {
	b.t.Helper()
	got, _ := lab.Serving(b.ctx, b.node(name).HTTPSAddr(), b.Layout.Names[0]) // what answers nothing serves nothing
	return got
}

// mustServe fails unless the node serves the leaf now.
func (b *bed) mustServe(fingerprint string, names ...string) {
	b.t.Helper()
	for _, name := range names {
		if got := b.serves(name); got != fingerprint {
			b.t.Errorf("%s serves %q, want %q\n%s", name, farm.Short(got), farm.Short(fingerprint), b.story())
		}
	}
}

// comesTo waits until a node serves a leaf.
func (b *bed) comesTo(name, fingerprint string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := lab.Await(ctx, b.node(name).HTTPSAddr(), b.Layout.Names[0], fingerprint); err != nil {
		b.t.Fatalf("%v\n%s", err, b.story())
	}
}

// allServe fails unless every node serves the leaf now.
func (b *bed) allServe(fingerprint string) {
	b.t.Helper()
	for _, n := range b.Nodes {
		b.mustServe(fingerprint, n.Name())
	}
}

// issued is how many certificates the CA has issued.
func (b *bed) issued() (n int) {
	for _, of := range b.CA.Stats().Certificates {
		n += of
	}
	return n
}

// opened is how many orders the CA has opened.
func (b *bed) opened() (n int) {
	for _, of := range b.CA.Stats().Orders {
		n += of
	}
	return n
}

// mustHaveIssued fails unless the CA has issued so many certificates.
func (b *bed) mustHaveIssued(n int) {
	b.t.Helper()
	if got := b.issued(); got != n {
		b.t.Errorf("the CA has issued %d certificates, want %d\n%s", got, n, b.story())
	}
}

// put lays a PEM file where the node's server reads its certificate, as a person
// would by hand, and reloads.
func (b *bed) put(name string, text []byte) {
	b.t.Helper()
	file := b.node(name).Path(lab.DefaultPEM)
	must(b.t, os.Remove(file))
	must(b.t, os.WriteFile(file, text, 0o600))
	b.run(name, "webd reload")
}

// run runs a command on a node over SSH.
func (b *bed) run(name, line string) {
	b.t.Helper()
	n := b.node(name)
	text, err := os.ReadFile(b.KeyFile)
	must(b.t, err)
	key, err := ssh.ParsePrivateKey(text)
	must(b.t, err)
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(n.HostKey()))
	must(b.t, err)
	c, err := ssh.Dial("tcp", n.SSHAddr(), &ssh.ClientConfig{
		User: lab.LoginUser, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(pinned), Timeout: patience,
	})
	must(b.t, err)
	defer func() { _ = c.Close() }()
	s, err := c.NewSession()
	must(b.t, err)
	out, err := s.CombinedOutput(line)
	if err != nil {
		b.t.Fatalf("%s: %s: %v: %s", name, line, err, out)
	}
}

// reloads counts how often a node's server was told to reload.
func (b *bed) reloads(name string) int {
	return strings.Count(strings.Join(b.node(name).Ran(), "\n"), "reload")
}

// A journal keeps what is logged.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write adds to the log.
func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// String is the whole log.
func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}
