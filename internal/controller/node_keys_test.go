package controller_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// keysOf are the keys that a node made and holds, by file, as base64 lines.
func (o *ownNodes) keysOf(node string) map[string][]byte {
	o.t.Helper()
	all := map[string][]byte{}
	files, err := filepath.Glob(filepath.Join(o.state, node, "keys", "*.pem"))
	must(o.t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(o.t, err)
		all[f] = []byte(strings.Split(string(text), "\n")[1])
	}
	return all
}

// Where a node decides for itself its key is made there: it is not in the store, not in
// the log, not in a file of the controller. When it is known to others the node makes
// another one, and forgets the first.
func TestKeysThatNeverLeaveTheirNode(t *testing.T) {
	t.Parallel()
	b, o := newOwnBed(t)
	b.rewrite(func(text string) string { return perNode(b, text) })
	b.apply()
	b.settled()
	first := b.distinct("web1", "web2", "web3")
	var keys [][]byte
	for _, node := range []string{"web1", "web2", "web3"} {
		own := o.keysOf(node)
		if len(own) != 1 {
			t.Fatalf("%s holds %d keys", node, len(own))
		}
		for _, k := range own {
			keys = append(keys, k)
		}
	}
	for _, v := range b.describe().Versions {
		if l := v.Leaves[0]; l.Key.Sealed != "" || l.Key.Node != strings.TrimPrefix(v.Site, "shop@") {
			t.Errorf("the key of %s is at %+v", v.Site, l.Key)
		}
	}
	must(t, b.store.View(b.ctx, func(tx *store.Tx) error {
		for r, err := range tx.AllSealed(b.ctx) {
			if err != nil {
				return err
			}
			if r.Kind == "key" {
				t.Errorf("a key is sealed here: %s", r.Name)
			}
		}
		return nil
	}))
	b.nowhere(t, filepath.Join(b.Layout.Dir, "controller"), keys)

	_, err := b.Controller.Compromise(b.ctx, b.Farm, member("web2"), controller.CompromiseAsk{}, "somebody")
	must(t, err)
	b.happens("compromise.over", "")
	b.settled()
	if own := o.keysOf("web2"); len(own) != 1 || bytes.Contains(bytes.Join(values(own), nil), keys[1]) {
		t.Errorf("web2 holds %d keys, or the one that others know", len(own))
	}
	if now := b.distinct("web1", "web2", "web3"); now[0] != first[0] || now[1] == first[1] || now[2] != first[2] {
		t.Error("another node's certificate was changed, or web2's was not")
	}
	for _, v := range b.own("web2").Versions {
		if v.State == farm.VersionCompromised && v.Leaves[0].Key != (farm.KeyRef{}) {
			t.Errorf("the key of a compromised version is at %+v", v.Leaves[0].Key)
		}
	}
}

func values(m map[string][]byte) (all [][]byte) {
	for _, v := range m {
		all = append(all, v)
	}
	return all
}

// nowhere fails if one of the texts is in a file below a folder, or in the log.
func (b *bed) nowhere(t *testing.T, folder string, texts [][]byte) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(b.log.String(), string(text)) {
			t.Error("a key is in the log")
		}
	}
	must(t, filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all, err := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(all, text) {
				t.Errorf("a key is in %s", path)
			}
		}
		return err
	}))
}
