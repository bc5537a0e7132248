package controller_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// A store is looked through on demand: what another site's target writes is known,
// what nobody writes is told, and nothing is changed.
func TestAuditOfAStore(t *testing.T) {
	t.Parallel()
	root, password := t.TempDir(), farm.NewSecret([]byte("correct horse battery"))
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, password.Reveal(), 0o600))
	reader := startReader(t, filepath.Join(root, "shop.test.pfx"), password)
	options, err := json.Marshal(map[string]any{"path": root, "polling_interval": "1s"})
	must(t, err)
	target := fmt.Sprintf("      - {kind: ccs, options: %s, secrets: {store_password: {file: %q}}, endpoints: [{address: %q}]}\n", options, secret, reader)
	b, v1 := serving(t, setting{layout: lab.Layout{Nodes: 1}, edit: func(_ *bed, text string) string {
		return strings.Replace(text, "    balancers:", target+"    balancers:", 1)
	}})
	d, err := b.Controller.Target(b.ctx, b.Farm, "shop/ccs")
	must(t, err)
	if d.Sync != "in-sync" || d.Fence != "unfenced" || !d.Audits || d.Group != "ccs "+filepath.ToSlash(strings.ToLower(root)) ||
		!slices.Equal(d.Readers, []string{"127.0.0.1"}) || d.NotAfter.IsZero() || len(d.Sights) != 1 ||
		d.Options["polling_interval"] != "1s" || d.Secrets["store_password"] != "file "+secret || !slices.Equal(d.Wants, []string{v1}) {
		t.Errorf("it is described as %+v", d)
	}

	audit := func() map[string]string {
		t.Helper()
		a, err := b.Controller.Audit(b.ctx, b.Farm, "shop/ccs")
		must(t, err)
		found := map[string]string{}
		for _, f := range a.Findings {
			found[f.Place] = f.Trouble
		}
		return found
	}
	if got := audit(); len(got) > 0 {
		t.Errorf("a store as it should be: %v", got)
	}
	other, err := encode.Placeholder([]string{"old.test"}, time.Now())
	must(t, err)
	pfx, err := encode.PFX(other, encode.PFXOptions{Password: password})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "old.test.pfx"), pfx, 0o600))
	if got := audit(); !maps.Equal(got, map[string]string{"old.test.pfx": "orphan"}) {
		t.Errorf("what nobody writes: %v", got)
	}
	must(t, os.RemoveAll(root))
	if _, err := b.Controller.Audit(b.ctx, b.Farm, "shop/ccs"); err == nil || !strings.Contains(err.Error(), "looking at the store") {
		t.Errorf("a store that is gone gives %v", err)
	}
	refusal, ok := errors.AsType[*controller.Refusal](second(b.Controller.Audit(b.ctx, b.Farm, d.Site+"/"+b.kindOf(t)+"@web1")))
	if !ok || !strings.Contains(refusal.Problem, "has no audit") {
		t.Errorf("a kind without an audit gives %v", refusal)
	}
	if _, err := b.Controller.Audit(b.ctx, b.Farm, "shop/none"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no target gives %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// kindOf is the kind of the lab's own targets.
func (b *bed) kindOf(t *testing.T) string {
	t.Helper()
	all, err := b.Controller.Targets(b.ctx, b.Farm, "")
	must(t, err)
	for _, s := range all {
		if s.Node == "web1" {
			return s.Kind
		}
	}
	t.Fatal("web1 has no target")
	return ""
}
