package target

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"testing"

	gossh "golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// opensshNode is this machine through a real sshd with its stock limits.
func opensshNode(t *testing.T) *ssh.Host {
	t.Helper()
	const program = "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		t.Skip("OpenSSH's sshd is not installed")
	}
	me, err := user.Current()
	must(t, err)
	if me.Uid == "0" {
		must(t, os.MkdirAll("/run/sshd", 0o755))
	}
	dir, err := os.MkdirTemp(me.HomeDir, ".certfarm-sshd-") //nolint:usetesting // StrictModes refuses keys below /tmp
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	var texts [2][]byte
	var signers [2]gossh.Signer
	for i := range texts {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		must(t, err)
		block, err := gossh.MarshalPrivateKey(key, "")
		must(t, err)
		texts[i] = pem.EncodeToMemory(block)
		signers[i], err = gossh.NewSignerFromKey(key)
		must(t, err)
	}
	addr := freeAddr(t)
	_, text, err := net.SplitHostPort(addr)
	must(t, err)
	port, err := strconv.Atoi(text)
	must(t, err)
	must(t, os.WriteFile(dir+"/key", texts[0], 0o600))
	must(t, os.WriteFile(dir+"/keys", []byte(sshserver.Authorized(signers[1].PublicKey())+"\n"), 0o600))
	config := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/key\nAuthorizedKeysFile %s/keys\nPidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n", port, dir, dir)
	must(t, os.WriteFile(dir+"/config", []byte(config), 0o600))
	cmd := exec.Command(program, "-D", "-e", "-f", dir+"/config")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	(&real{}).until(t, "up", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	h, err := ssh.New(ssh.Config{
		Node: farm.Node{Name: "real", Address: "127.0.0.1", SSH: &farm.SSH{Port: port, User: me.Username, HostKeys: []string{sshserver.Authorized(signers[0].PublicKey())}}},
		Key:  ssh.FixedKey(farm.NewSecret(texts[1])),
	})
	must(t, err)
	t.Cleanup(func() { h.Close() })
	return h
}

// The admin socket through a real sshd, which forwards sockets
// (direct-streamlocal@openssh.com) unless told not to.
func TestHAProxyThroughOpenSSH(t *testing.T) {
	r := startHAProxy(t)
	h := opensshNode(t)
	open := func() {
		text, err := json.Marshal(r.options)
		must(t, err)
		r.Deployer, err = All().Open(r.kind, text, deploy.Setup{Host: h})
		must(t, err)
	}
	open()
	first, second := deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	must(t, r.Activate(t.Context(), r.stage(t, 1, first))) // it does not run yet
	r.serves(t, first.Leaf)
	r.options["reload"] = []string{"false"}
	open()
	rs := r.stage(t, 2, second)
	must(t, r.Activate(t.Context(), rs))
	if got := r.served(); got != second.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
	must(t, r.Restore(t.Context(), rs))
	if got := r.served(); got != first.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
}
