package controller_test

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/deploy/cloud"
	"github.com/certfarm/certfarm/internal/deploy/cloud/azurefake"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/store"
)

// readVault is a server that reads a vault at each handshake: the version of this
// number, or at 0 the newest.
func readVault(t *testing.T, vault *azurefake.Vault, number *atomic.Int64) (address string) {
	t.Helper()
	return serveTLS(t, func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		all, at := vault.All(), int(number.Load())
		if at == 0 {
			at = len(all)
		}
		if at == 0 || at > len(all) {
			return nil, errors.New("there is no such version yet")
		}
		data, err := base64.StdEncoding.DecodeString(string(all[at-1].Value))
		if err != nil {
			return nil, err
		}
		return pairOf(data, farm.Secret{})
	})
}

// What a vault keeps of an old key by itself is taken from its readers, by name, and
// not before the last of them has left it; what is current stays.
func TestACompromisedKeyLeavesAVault(t *testing.T) {
	t.Parallel()
	vault := azurefake.New()
	var newest, pinned atomic.Int64
	lines := fmt.Sprintf(`      - {kind: azure-key-vault, name: kv, options: {vault: 'https://shop.vault.azure.net', certificate: shop}, endpoints: [{address: %q}]}
    balancers:
      - address: %q`, readVault(t, vault, &newest), readVault(t, vault, &pinned))
	b, v1 := serving(t, setting{
		layout: lab.Layout{Nodes: 1}, policy: steady(),
		edit: func(_ *bed, text string) string { return strings.Replace(text, "    balancers:", lines, 1) },
		adjust: func(_ *bed, c *controller.Config) {
			c.Kinds["azure-key-vault"] = cloud.KeyVaultOver(vault, azurefake.Credential())
		},
	})
	b.renew()
	v2 := b.fingerprint(b.ended(farm.Done, 2).To.ID)
	b.rests()
	pinned.Store(2)
	b.compromise(controller.CompromiseAsk{})
	b.ended(farm.Done, 3)
	if e := b.happens("copies.left", ""); e.Target != "shop/kv" || !strings.Contains(e.Text, "still served by balancer") {
		t.Errorf("%+v", e)
	}
	for i, v := range vault.All() {
		if v.Disabled {
			t.Errorf("version %d is taken away while version 2 is served", i+1)
		}
	}
	pinned.Store(0)
	b.pass(b.Controller.Pace.Look) // until it is asked again
	b.escaped()
	all := vault.All()
	if len(all) != 3 || !all[0].Disabled || !all[1].Disabled || all[2].Disabled {
		t.Errorf("%d versions, of which are disabled: %t %t %t", len(all), all[0].Disabled, all[1].Disabled, all[2].Disabled)
	}
	for _, leaf := range []string{v1, v2} {
		b.mustBeRevoked(leaf, issue.KeyCompromise)
	}
	told, err := b.Controller.Events(b.ctx, b.Farm, store.EventQuery{Kind: "copies.erased"})
	must(t, err)
	for _, e := range told {
		if e.Target == "shop/kv" && (!strings.Contains(e.Text, "earlier versions 1, 2") || !strings.Contains(e.Text, "purged") || e.Level != farm.Warn) {
			t.Errorf("%+v", e)
		}
	}
	if len(told) != 2 {
		t.Errorf("told %d times, want once for the node and once for the vault\n%s", len(told), b.story())
	}
}
