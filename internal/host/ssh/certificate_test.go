package ssh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// authority is an SSH CA, which signs users and hosts.
type authority struct {
	ssh.Signer
	permissions ssh.Permissions // of the certificates
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := sshserver.NewKey()
	must(t, err)
	return authority{Signer: key}
}

// sign makes a certificate that is good from an hour ago until the given time.
func (a authority) sign(t *testing.T, key ssh.PublicKey, kind uint32, principal string, until time.Time) string {
	t.Helper()
	c := &ssh.Certificate{
		Key: key, CertType: kind, KeyId: "certfarm", ValidPrincipals: []string{principal}, Permissions: a.permissions,
		ValidAfter: uint64(time.Now().Add(-time.Hour).Unix()), ValidBefore: uint64(until.Unix()),
	}
	must(t, c.SignCert(rand.Reader, a))
	return sshserver.Authorized(c)
}

// signed is a real sshd that knows no key, only what the CA signed, with a host
// certificate of the same CA.
func (a authority) signed(t *testing.T, l login, more func(dir string) string) farm.Node {
	t.Helper()
	n := sshdWith(t, l, func(dir string, hostKey ssh.PublicKey) string {
		must(t, os.WriteFile(dir+"/ca.pub", []byte(sshserver.Authorized(a.PublicKey())+"\n"), 0o600))
		host := a.sign(t, hostKey, ssh.HostCert, "127.0.0.1", time.Now().Add(time.Hour))
		must(t, os.WriteFile(dir+"/key-cert.pub", []byte(host+"\n"), 0o600))
		return fmt.Sprintf("TrustedUserCAKeys %s/ca.pub\nAuthorizedKeysFile none\nHostCertificate %s/key-cert.pub\n", dir, dir) + more(dir)
	})
	n.SSH.HostKeys, n.SSH.HostCAs = nil, []string{sshserver.Authorized(a.PublicKey())}
	return n
}

func nothing(string) string { return "" }

func myName(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	must(t, err)
	return me.Username
}

// A certificate that lives for minutes is read at each connect: one that has expired
// is told with its date, and the one that followed it is used without a restart.
func TestShortLivedCertificate(t *testing.T) {
	l, ca := newLogin(t), newAuthority(t)
	n := ca.signed(t, l, nothing)
	var now string
	c := l.config(n)
	c.Certificate = func(context.Context) (string, error) { return now, nil }
	for _, step := range []struct{ is, certificate, want string }{
		{"expired", ca.sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(-time.Second)), "it expired 20"},
		{"short", ca.sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(5*time.Minute)), ""},
		{"for somebody else", ca.sign(t, l.signer.PublicKey(), ssh.UserCert, "nobody-here", time.Now().Add(time.Hour)), "the certificate valid there"},
		{"of another CA", newAuthority(t).sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(time.Hour)), "the certificate valid there"},
		{"for a host", ca.sign(t, l.signer.PublicKey(), ssh.HostCert, myName(t), time.Now().Add(time.Hour)), "it is for a host"},
		{"a key", sshserver.Authorized(l.signer.PublicKey()), "plain key"},
		{"of another key", ca.sign(t, newLogin(t).signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(time.Hour)), "certificate for node"},
		{"nothing", "", "cannot be read"},
		{"renewed", ca.sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(5*time.Minute)), ""},
	} {
		now = step.certificate
		h := open(t, c) // a line that is open stays open: sshd looks at the login only
		_, err := h.Run(t.Context(), []string{"true"}, nil)
		if (err == nil) != (step.want == "") || err != nil && !strings.Contains(err.Error(), step.want) {
			t.Errorf("%s: %v, want %q", step.is, err, step.want)
		}
	}
	c.Certificate = func(context.Context) (string, error) { return "", errors.New("vault is sealed") }
	if _, err := open(t, c).Run(t.Context(), []string{"true"}, nil); err == nil || !strings.Contains(err.Error(), "user certificate for node real: vault is sealed") {
		t.Errorf("got %v", err)
	}
}

func TestCertificateOfTheFuture(t *testing.T) {
	l, ca := newLogin(t), newAuthority(t)
	text := ca.sign(t, l.signer.PublicKey(), ssh.UserCert, "deploy", time.Now().Add(time.Hour))
	if _, err := certified(l.signer, text, time.Now().Add(-2*time.Hour)); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
		t.Errorf("got %v", err)
	}
}

// gate is a forced command as the documentation has it: it lets through the SFTP
// server and the commands of one target, by their exact text.
const gate = `#!/bin/sh
case "$SSH_ORIGINAL_COMMAND" in
  internal-sftp) exec SFTP -u 0077 ;;
  'sh -c true'|'echo reloaded') eval "exec $SSH_ORIGINAL_COMMAND" ;;
esac
echo "not allowed here: $SSH_ORIGINAL_COMMAND" >&2
exit 126
`

// Through a forced command that lets through its list only, a whole installation
// works, and everything else is refused in words.
func TestForcedCommand(t *testing.T) {
	const server = "/usr/lib/openssh/sftp-server"
	if _, err := os.Stat(server); err != nil {
		t.Skip(server + " is not installed")
	}
	l, ca := newLogin(t), newAuthority(t)
	n := ca.signed(t, l, func(dir string) string {
		must(t, os.WriteFile(dir+"/gate.sh", []byte(strings.ReplaceAll(gate, "SFTP", server)), 0o700))
		return "ForceCommand " + dir + "/gate.sh\nPermitTTY no\n"
	})
	c := l.config(n)
	c.Certificate = func(context.Context) (string, error) {
		return ca.sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(5*time.Minute)), nil
	}
	h := open(t, c)
	_, err := h.Run(t.Context(), []string{"cat", "/etc/shadow"}, nil)
	if exit, ok := errors.AsType[*host.ExitError](err); !ok || exit.Status != 126 || !strings.Contains(string(exit.Output), "not allowed here: cat /etc/shadow") {
		t.Errorf("got %v", err)
	}
	if _, err := h.Run(t.Context(), []string{"echo", "reloaded; id"}, nil); err == nil {
		t.Error("what only begins like an allowed command passed")
	}

	dir := filepath.ToSlash(t.TempDir())
	d, err := target.All().Open("files", fmt.Appendf(nil, `{"chain": "%[1]s/c.pem", "key": "%[1]s/k.pem", "store": "%[1]s/store", "test": ["sh", "-c", "true"], "reload": ["echo", "reloaded"]}`, dir), deploy.Setup{Host: h})
	must(t, err)
	b := deploytest.NewBundle(t, farm.EC256)
	r, err := d.Stage(t.Context(), deploy.Stage{Site: "shop", Names: deploytest.Names, Bundles: []farm.Bundle{b}, Epoch: 1})
	must(t, err)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	if in, err := d.Inspect(t.Context()); err != nil || len(in.Leaves) != 1 || in.Leaves[0] != b.Leaf {
		t.Errorf("it holds %+v (%v)", in, err)
	}
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
}

// The way leads through a real sshd that lets its user through to one address and do
// nothing else there; both ends have host certificates, and both logins are signed.
func TestJumpThroughOpenSSH(t *testing.T) {
	if _, err := exec.LookPath("true"); err != nil {
		t.Skip("no true(1) here")
	}
	l, ca := newLogin(t), newAuthority(t)
	behind := ca.signed(t, l, nothing)
	behind.Name = "behind"
	allowed := net.JoinHostPort("127.0.0.1", strconv.Itoa(behind.SSH.Port))
	jump := ca.signed(t, l, func(string) string {
		return "ForceCommand /bin/false\nPermitTTY no\nAllowTcpForwarding local\nPermitOpen " + allowed + "\n"
	})
	jump.Name, behind.SSH.Jump = "jump", "jump"
	behind.SSH.CertificateFrom = farm.SecretRef{Secret: "login"}
	jump.SSH.CertificateCommand = "sign"
	signer := ca
	signer.permissions.Extensions = map[string]string{"permit-port-forwarding": ""}
	var asked []string
	p := NewPool(Source{
		Key:  func(context.Context, string, farm.SecretRef) (farm.Secret, error) { return farm.NewSecret(l.pem), nil },
		Node: func(context.Context, string, string) (farm.Node, error) { return jump, nil },
		Certificate: func(_ context.Context, _ string, n farm.Node) (string, error) {
			asked = append(asked, n.Name)
			return signer.sign(t, l.signer.PublicKey(), ssh.UserCert, myName(t), time.Now().Add(5*time.Minute)), nil
		},
	})
	t.Cleanup(func() { must(t, p.Close()) })
	h, err := p.Host(t.Context(), "shop", behind)
	must(t, err)
	out, err := h.Run(t.Context(), []string{"echo", "through"}, nil)
	if string(out) != "through\n" || err != nil {
		t.Errorf("got %q, %v", out, err)
	}
	if strings.Join(asked, " ") != "behind jump" {
		t.Errorf("certificates of %q were asked for", asked)
	}
	elsewhere := behind
	elsewhere.Name = "elsewhere"
	elsewhere.SSH = new(farm.SSH)
	*elsewhere.SSH = *behind.SSH
	elsewhere.SSH.Port = jump.SSH.Port
	h, err = p.Host(t.Context(), "shop", elsewhere)
	must(t, err)
	if _, err := h.Run(t.Context(), []string{"true"}, nil); !errors.Is(err, host.ErrUnreachable) || !strings.Contains(err.Error(), "PermitOpen") {
		t.Errorf("the jump host let through what it does not permit: %v", err)
	}
}
