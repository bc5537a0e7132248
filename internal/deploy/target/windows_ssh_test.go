package target

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/ssh"
	"github.com/certfarm/certfarm/internal/host/sshserver"
)

// windowsNode is a node that behaves as one with OpenSSH for Windows; run gets the
// words of its commands.
func windowsNode(t *testing.T, shell string, extensions bool, run func(argv []string) (int, string)) *ssh.Host {
	t.Helper()
	s := &sshserver.Server{Root: t.TempDir(), Windows: true, NoFsync: !extensions, NoPosixRename: !extensions, Exec: sshserver.WindowsShell(shell, nil, run)}
	must(t, os.Mkdir(s.Root+"/C:", 0o700))
	return reach(t, s, shell)
}

// service answers to the commands of onDrive, and to no others.
func service(argv []string) (int, string) {
	words := [][]string{httpdTest, httpdRestart, {"net", "start", "Apache2.4"}}
	got := strings.ReplaceAll(strings.Join(argv, "|"), `\`, "/")
	if !slices.ContainsFunc(words, func(w []string) bool { return strings.Join(w, "|") == got }) {
		return 1, "no such command"
	}
	return 0, ""
}

// On a node whose SFTP server renames over nothing, which is the hardest. Commands are
// of no matter here.
func TestOverSSHOnWindows(t *testing.T) {
	s := onDrive("files")
	s.options, s.test, s.reload = nil, "", ""
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		return s.driveBench(t, windowsNode(t, host.Cmd, false, service))
	})
}

// There and back with commands, on a node with the extensions that OpenSSH for Windows
// has today.
func TestShellsOnWindows(t *testing.T) {
	for _, shell := range []string{host.Cmd, host.PowerShell} {
		t.Run(shell, func(t *testing.T) {
			thereAndBack(t, onDrive("apache").driveBench(t, windowsNode(t, shell, true, service)))
		})
	}
}

// thereAndBack takes over a file, replaces it and gives it back.
func thereAndBack(t *testing.T, b deploytest.Bench) {
	t.Helper()
	d, old, next := b.Target.Deployer, deploytest.NewBundle(t, farm.EC256), deploytest.NewBundle(t, farm.EC256)
	b.Plain(t, b.Target, old)
	r, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Epoch: 1, Bundles: []farm.Bundle{next}})
	must(t, err)
	holds := func(want farm.Bundle) {
		t.Helper()
		if in, err := d.Inspect(t.Context()); err != nil || in.Mismatch || !slices.Equal(in.Leaves, []string{want.Leaf}) {
			t.Fatalf("holds %+v (%v)", in, err)
		}
	}
	holds(old)
	must(t, d.Activate(t.Context(), []deploy.Receipt{r}))
	holds(next)
	must(t, d.Restore(t.Context(), []deploy.Receipt{r}))
	holds(old)
	must(t, d.Discard(t.Context(), r))
	holds(old)
}
