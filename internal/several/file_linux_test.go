package several

import (
	"context"
	"crypto/ed25519"
	crypto "crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// sshSecret is the key to nodes, by its name in farm.yaml.
const sshSecret = "ssh"

// sshKey makes the key to nodes.
func sshKey() (farm.Secret, ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(crypto.Reader)
	if err != nil {
		return farm.Secret{}, nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return farm.Secret{}, nil, err
	}
	known, err := ssh.NewPublicKey(public)
	return farm.NewSecret(pem.EncodeToMemory(block)), known, err
}

// A file is unfenced: a PEM file on a node that is reached over SSH, of a server that
// watches it. Whatever arrives is done, whoever sent it.
type file struct {
	*front
	node *sshserver.Server
	stop context.CancelFunc
	over chan struct{} // closed when nobody watches the file any more
	read string        // from the file; guarded by front.mu
	kept string        // folder with an older version, for relapse
}

func newFile(chance *rand.Rand, known ssh.PublicKey) (place, error) {
	root, err := os.MkdirTemp("", "certfarm-several-")
	if err != nil {
		return nil, err
	}
	f := &file{node: &sshserver.Server{Root: root, AuthorizedKeys: []ssh.PublicKey{known}}, over: make(chan struct{})}
	if f.front, err = newFront(chance); err != nil {
		return nil, err
	}
	if err := f.node.Start(); err != nil {
		return nil, err
	}
	var ctx context.Context
	ctx, f.stop = context.WithCancel(context.Background())
	go f.watch(ctx) // ends with close
	return f, nil
}

// watch shows what is in the file.
func (f *file) watch(ctx context.Context) {
	defer close(f.over)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		f.look()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look reads the file, as its server does when it has changed.
func (f *file) look() {
	f.mu.Lock()
	defer f.mu.Unlock()
	text, err := os.ReadFile(filepath.Join(f.node.Root, "tls", "shop.pem"))
	if err != nil || string(text) == f.read {
		return // not there, or nothing new
	}
	f.read = string(text)
	if pair, err := tls.X509KeyPair(text, text); err == nil {
		f.show(pair)
	}
}

func (f *file) entry(name string) string {
	return fmt.Sprintf(`{kind: files, on: %s, options: {pem: /tls/shop.pem, store: /store}, endpoints: [{address: %q}]}`, name, f.endpoint.Addr())
}

// machine is the node's entry in farm.yaml.
func (f *file) machine() (string, error) {
	_, port, err := net.SplitHostPort(f.node.Addr())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf(`{address: 127.0.0.1, ssh: {port: %s, user: certfarm, host_key: [%q], key: {secret: %s}, connect_timeout: 2s}}`, port, f.node.HostKey(), sshSecret), nil
}

func (f *file) calls() string { return f.node.Addr() }

func (f *file) fenced() bool { return false }

func (f *file) close() {
	f.stop()
	<-f.over
	_ = f.node.Close() // the story has ended
	_ = f.endpoint.Close()
	_ = os.RemoveAll(f.node.Root)
}

// keep keeps the version that is live, for relapse.
func (f *file) keep() error {
	current, err := f.current()
	if err != nil {
		return err
	}
	folder, err := os.Readlink(current)
	if err != nil {
		return err
	}
	f.kept = folder
	return os.CopyFS(filepath.Join(f.node.Root, "kept"), os.DirFS(filepath.Join(filepath.Dir(current), folder)))
}

// relapse does what the last step of an activation does that was under way for very
// long: it switches to the version that was kept.
func (f *file) relapse() error {
	current, err := f.current()
	if err != nil {
		return err
	}
	back := filepath.Join(filepath.Dir(current), f.kept)
	if err := os.CopyFS(back, os.DirFS(filepath.Join(f.node.Root, "kept"))); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := errors.Join(os.Symlink(f.kept, current+".stale"), os.Rename(current+".stale", current)); err != nil {
		return err
	}
	f.look()
	return nil
}

// current is the link that is the switch.
func (f *file) current() (string, error) {
	found, err := filepath.Glob(filepath.Join(f.node.Root, "store", "*", "current"))
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("there are %d links to what is live: %w", len(found), err)
	}
	return found[0], nil
}
