package drain_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/drain"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// onDisk looks at what the inner deployer has on disk, once.
func onDisk(d deploy.Deployer) deploy.Look {
	return func(ctx context.Context, _ string, leaves []string) error {
		in, err := d.Inspect(ctx)
		if err != nil {
			return err
		}
		for _, l := range in.Leaves {
			if !slices.Contains(leaves, l) {
				return fmt.Errorf("it serves %s", farm.Short(l))
			}
		}
		return nil
	}
}

// The contract holds around a kind, with every call to the balancer cut in turn, too,
// and the node is never left out after a call that found it in order.
func TestContract(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		p := &pool{state: "in"}
		m := &hosttest.Mem{Exec: p.answer}
		f := &hosttest.Faulty{Linked: m}
		ledger := memory()
		open := func(names ...string) deploytest.Target {
			of := deploytest.Target{Keys: []farm.KeyType{farm.EC256, farm.RSA2048}[:len(names)]}
			live := path.Join("/etc/tls", names[0])
			options := fmt.Sprintf(`"pem": %q`, live)
			of.Live = append(of.Live, [2]string{live, live})
			if len(names) > 1 {
				second := path.Join("/etc/tls", names[1])
				options += fmt.Sprintf(`, "more": [{"keys": "rsa2048", "pem": %q}]`, second)
				of.Live = append(of.Live, [2]string{second, second})
			}
			inner, err := target.All().Open("nginx", []byte("{"+options+"}"), deploy.Setup{Host: f})
			must(t, err)
			of.Deployer = drain.New(drain.Setup{
				Inner: inner, Ledger: ledger, Look: onDisk(inner),
				Servers: []drain.Server{{Balancer: drain.Command{Run: f, List: "pool", Argv: []string{"pool"}, Node: "web1"}}},
			})
			return of
		}
		t.Cleanup(func() {
			if !f.Hang && p.state != "in" {
				t.Errorf("the node was left %s", p.state)
			}
		})
		return deploytest.Bench{
			Host: f, Target: open("shop.pem"), Second: open("blog.pem"), Double: open("both.pem.ecdsa", "both.pem.rsa"),
			Test: "nginx -t", Reload: "nginx -s reload",
			Plain: func(t deploytest.T, of deploytest.Target, b farm.Bundle) {
				made := m.Mkdir(t.Context(), "/etc/tls", host.Attr{Mode: 0o755})
				wrote := m.Write(t.Context(), of.Live[0][0], slices.Concat(b.Chain, b.Key.Reveal()), host.Attr{Mode: 0o600})
				if err := errors.Join(made, wrote); err != nil {
					t.Errorf("%v", err)
				}
			},
		}
	})
}
