package e2e

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestGround shows that the machines are what the other tests take them for: the
// login gets in with its key, may run the commands of the sudo rule and nothing
// else as root, and Apache does end when its key is wrong at a graceful restart.
func TestGround(t *testing.T) {
	g := newGround(t, false,
		nodeSpec{name: "web1", kind: "nginx", pair: true, plain: true},
		nodeSpec{name: "web2", kind: "apache", pair: true, plain: true})
	for _, n := range g.nodes {
		test, reload, start := n.commands()
		for _, argv := range [][]string{test, reload, start} {
			out, err := n.as(t, g.keyFile, argv...)
			if bytes.Contains(out, []byte("password is required")) {
				t.Errorf("%s: %v: %v %s", n.name, argv, err, out)
			}
		}
		if out, err := n.as(t, g.keyFile, "/usr/bin/id"); err == nil {
			t.Errorf("%s: the login may run anything as root: %s", n.name, out)
		}
		before := n.reloads(t)
		must(t, n.reload())
		within(t, 20*time.Second, n.name+" says that it reloads", func() bool { return n.reloads(t) > before })
		within(t, 20*time.Second, n.name+" serves", func() bool {
			_, err := leafAt(t, n.https(), siteNames[0], g.roots)
			return err == nil
		})
	}
	apache := g.nodes[1]
	must(t, os.WriteFile(apache.keyFile(), otherKey(t), 0o600))
	must(t, apache.reload())
	within(t, 20*time.Second, "Apache ends", func() bool { return apache.server() == 0 && !answers(apache.https()) })
}

// as runs a command on the node by `sudo -n`, logged in with the key.
func (n *node) as(t testing.TB, keyFile string, argv ...string) ([]byte, error) {
	t.Helper()
	text, err := os.ReadFile(keyFile)
	must(t, err)
	key, err := ssh.ParsePrivateKey(text)
	must(t, err)
	pinned, _, _, _, err := ssh.ParseAuthorizedKey([]byte(n.hostKey))
	must(t, err)
	c, err := ssh.Dial("tcp", n.ssh(), &ssh.ClientConfig{
		User: login, Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(pinned), Timeout: 5 * time.Second,
	})
	must(t, err)
	defer c.Close() // a test's own line
	s, err := c.NewSession()
	must(t, err)
	line := "sudo -n --"
	for _, w := range argv {
		line += " " + w
	}
	return s.CombinedOutput(line)
}
