package ssh

import (
	"bytes"
	"context"
	"fmt"
	"io"
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

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// record answers each command with its line, and has no timeout(1).
func record(lines chan<- string) func(context.Context, string, io.Reader, io.Writer) int {
	return func(_ context.Context, line string, _ io.Reader, _ io.Writer) int {
		lines <- line
		if strings.HasPrefix(line, "timeout ") {
			return 127
		}
		return 0
	}
}

// sshd starts the real OpenSSH with its stock limits, as the user of the test.
// Its files lie below the user's own folder, since StrictModes refuses keys in
// folders that all may write to, such as /tmp.
func sshd(t *testing.T, l login) farm.Node {
	t.Helper()
	return sshdWith(t, l, func(string, ssh.PublicKey) string { return "" })
}

// sshdWith is sshd with more lines of configuration, which come first and so win. Its
// folder and its host key are for what they name.
func sshdWith(t *testing.T, l login, more func(dir string, hostKey ssh.PublicKey) string) farm.Node {
	t.Helper()
	path, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		t.Skip("OpenSSH's sshd is not installed")
	}
	me, err := user.Current()
	must(t, err)
	if me.Uid == "0" {
		must(t, os.MkdirAll("/run/sshd", 0o755))
	}
	dir, err := os.MkdirTemp(me.HomeDir, ".certfarm-sshd-") //nolint:usetesting // StrictModes, as above
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	hostKey := newLogin(t)
	must(t, os.WriteFile(dir+"/key", hostKey.pem, 0o600))
	must(t, os.WriteFile(dir+"/keys", []byte(sshserver.Authorized(l.signer.PublicKey())+"\n"), 0o600))
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	config := more(dir, hostKey.signer.PublicKey()) + fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s/key\nAuthorizedKeysFile %s/keys\nPidFile none\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n",
		port, dir, dir)
	must(t, os.WriteFile(dir+"/config", []byte(config), 0o600))
	var log bytes.Buffer
	cmd := exec.Command(path, "-D", "-e", "-f", dir+"/config")
	cmd.Stderr = &log
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	for begin := time.Now(); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			break
		}
		if time.Since(begin) > 5*time.Second {
			t.Fatalf("sshd does not start: %v: %s", err, log.String())
		}
		time.Sleep(10 * time.Millisecond) // no event tells that a port is open
	}
	return farm.Node{Name: "real", Address: "127.0.0.1",
		SSH: &farm.SSH{Port: port, User: me.Username, HostKeys: []string{sshserver.Authorized(hostKey.signer.PublicKey())}}}
}

func TestOpenSSH(t *testing.T) {
	l := newLogin(t)
	n := sshd(t, l)
	h := open(t, l.config(n))
	hosttest.Run(t, func(t *testing.T) hosttest.Bench {
		return hosttest.Bench{Host: h, Dir: filepath.ToSlash(t.TempDir()), Commands: true}
	})
}

// The deadline on the node: the command is gone although the line stands.
func TestOpenSSHEndsCommandsOnTheNode(t *testing.T) {
	if _, err := exec.LookPath("timeout"); err != nil {
		t.Skip("no timeout(1) here")
	}
	l := newLogin(t)
	h := open(t, l.config(sshd(t, l)))
	_, err := h.Run(t.Context(), []string{"true"}, nil) // the login takes its time
	must(t, err)
	mark := filepath.Join(t.TempDir(), "late")
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	_, err = h.Run(ctx, []string{"sh", "-c", "sleep 4; echo > " + mark}, nil)
	is(t, err, context.DeadlineExceeded)
	if !strings.Contains(err.Error(), "the node ended it") {
		t.Fatalf("who ended it? %v", err)
	}
	time.Sleep(2000 * time.Millisecond) // nothing happening is no event
	if _, err := os.Stat(mark); err == nil {
		t.Fatal("the command went on")
	}
}
