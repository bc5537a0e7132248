package e2e

import (
	"bytes"
	"context"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// trouble is what happens between the controller and a node, and on the node,
// that the controller cannot know of.
type trouble struct {
	mu         sync.Mutex
	wrongKey   string // node whose files get another key on the way
	lateTamper string // node whose live key is changed when all checks are over, before the reload
}

func (tr *trouble) set(wrongKey, lateTamper string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	tr.wrongKey, tr.lateTamper = wrongKey, lateTamper
}

func (tr *trouble) get() (wrongKey, lateTamper string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.wrongKey, tr.lateTamper
}

// on puts the trouble between the controller and its nodes.
func (tr *trouble) on(t testing.TB, g *ground, open controller.Hosts) controller.Hosts {
	key := otherKey(t)
	return func(ctx context.Context, farmName string, n farm.Node, c controller.Context) (host.Host, error) {
		h, err := open(ctx, farmName, n, c)
		if err != nil {
			return nil, err
		}
		return troubled{h, h.(host.Linker), tr, g.node(t, n.Name), key}, nil
	}
}

// A troubled host is a line to a node on which things happen.
type troubled struct {
	host.Host
	host.Linker
	trouble *trouble
	node    *node
	key     []byte
}

// Write hands on what it is given, or another key in the place of the one.
func (h troubled) Write(ctx context.Context, name string, data []byte, a host.Attr) error {
	if node, _ := h.trouble.get(); node == h.node.name {
		data = rekeyed(data, h.key)
	}
	return h.Host.Write(ctx, name, data, a)
}

// Run changes the key under the server's feet at the last moment.
func (h troubled) Run(ctx context.Context, argv []string, stdin []byte) ([]byte, error) {
	_, reload, _ := h.node.commands()
	if _, node := h.trouble.get(); node == h.node.name && slices.Equal(argv, reload) {
		data, err := os.ReadFile(h.node.keyFile())
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(h.node.keyFile(), rekeyed(data, h.key), 0o600); err != nil {
			return nil, err
		}
		h.trouble.set("", "") // once: the restore goes undisturbed
	}
	return h.Host.Run(ctx, argv, stdin)
}

var keyBegin, keyEnd = []byte("-----BEGIN PRIVATE KEY-----"), []byte("-----END PRIVATE KEY-----\n")

// rekeyed is a PEM text with another key.
func rekeyed(data, key []byte) []byte {
	from := bytes.Index(data, keyBegin)
	if from < 0 {
		return data
	}
	to := from + bytes.Index(data[from:], keyEnd) + len(keyEnd)
	return slices.Concat(data[:from], key, data[to:])
}
