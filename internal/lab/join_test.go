package lab

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/ssh"
)

// TestNodesAreReachedAsFarmYAMLSays goes the way of the controller: what the
// farm.yaml of the lab says is what its nodes are.
func TestNodesAreReachedAsFarmYAMLSays(t *testing.T) {
	m := newMachines(t, Layout{RTT: 2 * time.Millisecond, ReloadTime: 2 * time.Millisecond})
	ca := newCA(t)
	for _, node := range parsed(t, m, labFile(t)).Nodes {
		n, err := m.Node(node.Name)
		must(t, err)
		key, err := os.ReadFile(node.SSH.Key.File)
		must(t, err)
		h, err := ssh.New(ssh.Config{Node: node, Key: ssh.FixedKey(farm.NewSecret(key))})
		must(t, err)
		rehearse(t, n, h, ca)
		must(t, h.Close())
	}
}

func rehearse(t *testing.T, n *Node, h *ssh.Host, ca *testCA) {
	t.Helper()
	ctx := soon(t)
	run := func(argv ...string) {
		t.Helper()
		if _, err := h.Run(ctx, argv, nil); err != nil {
			t.Fatal(err)
		}
	}
	first, old := ca.issue(t, "shop.test")
	must(t, h.Mkdir(ctx, StoreFolder+"/v1", host.Attr{Mode: 0o700}))
	must(t, h.Write(ctx, StoreFolder+"/v1/it's.pem", first, host.Attr{Mode: 0o600}))
	must(t, h.Link(ctx, StoreFolder+"/v1/it's.pem", DefaultPEM))
	run("test", "-s", StoreFolder+"/v1/it's.pem")
	run("webd", "-t")
	run("webd", "start")
	must(t, Await(ctx, n.HTTPSAddr(), "shop.test", old))

	second, fingerprint := ca.issue(t, "shop.test")
	must(t, h.Write(ctx, StoreFolder+"/v2.pem", second, host.Attr{Mode: 0o600}))
	must(t, h.Link(ctx, StoreFolder+"/v2.pem", DefaultPEM))
	run("webd", "reload")
	must(t, Await(ctx, n.HTTPSAddr(), "shop.test", fingerprint))

	must(t, n.Set(Fault{Kind: DiskFull}))
	if h.Write(ctx, StoreFolder+"/v3.pem", first, host.Attr{Mode: 0o600}) == nil {
		t.Error("writes onto a full disk")
	}
	must(t, n.Set(Fault{Kind: SSHDown}))
	if _, err := h.Run(ctx, []string{"true"}, nil); !errors.Is(err, host.ErrUnreachable) {
		t.Errorf("ssh-down: %v", err)
	}
	must(t, n.Clear())
	run("true")
	must(t, n.Set(Fault{Kind: Hangs}))
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := h.Run(short, []string{"true"}, nil); err == nil {
		t.Error("a node that hangs has answered")
	}
	must(t, n.Clear())
}
