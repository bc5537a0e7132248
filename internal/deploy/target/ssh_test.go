package target

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"net"
	"path/filepath"
	"strconv"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// node is an SSH server in this process, and the way to it.
func node(t *testing.T) (*sshserver.Server, *ssh.Host) {
	t.Helper()
	s := &sshserver.Server{Exec: sshserver.Shell}
	return s, reach(t, s, "")
}

// reach starts a server, and is the way to it for a shell.
func reach(t *testing.T, s *sshserver.Server, shell string) *ssh.Host {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := gossh.MarshalPrivateKey(key, "")
	must(t, err)
	signer, err := gossh.NewSignerFromKey(key)
	must(t, err)
	s.AuthorizedKeys = []gossh.PublicKey{signer.PublicKey()}
	must(t, s.Start())
	t.Cleanup(func() { s.Close() })
	address, text, err := net.SplitHostPort(s.Addr())
	must(t, err)
	port, err := strconv.Atoi(text)
	must(t, err)
	h, err := ssh.New(ssh.Config{
		Node: farm.Node{Name: "n1", Address: address, Shell: shell, SSH: &farm.SSH{Port: port, User: "deploy", HostKeys: []string{s.HostKey()}}},
		Key:  ssh.FixedKey(farm.NewSecret(pem.EncodeToMemory(block))),
	})
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

func TestOverSSH(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		_, h := node(t)
		return bench(t, h, filepath.ToSlash(t.TempDir()), "files", "pair", "", "")
	})
}

// The faults that only a server can have.
func TestFaultsOnTheServer(t *testing.T) {
	s, h := node(t)
	b := bench(t, h, filepath.ToSlash(t.TempDir()), "files", "pem", "", "")
	d := b.Target.Deployer
	stage := func(c farm.Bundle) ([]deploy.Receipt, error) {
		r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: 1, Bundles: []farm.Bundle{c}})
		return []deploy.Receipt{r}, err
	}
	old := deploytest.NewBundle(t, farm.EC256)
	rs, err := stage(old)
	must(t, err)
	must(t, d.Activate(t.Context(), rs))
	for name, f := range map[string]sshserver.Faults{
		"disk full":     {DiskFull: true},
		"bytes flipped": {Alter: sshserver.FlipWrites},
	} {
		s.SetFaults(f)
		if _, err := stage(deploytest.NewBundle(t, farm.EC256)); err == nil {
			t.Errorf("%s: staged", name)
		}
		s.SetFaults(sshserver.Faults{})
		if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != old.Leaf {
			t.Errorf("%s: holds %+v (%v)", name, in, err)
		}
	}
}
