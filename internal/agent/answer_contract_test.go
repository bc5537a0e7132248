package agent_test

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"testing"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// wired takes calls as they go over a line, and gives up when the caller does.
type wired struct{ to remote.Answerer }

func (w wired) Call(ctx context.Context, c remote.Call) (remote.Answer, error) {
	text, err := remote.Seal(c)
	if err != nil {
		return remote.Answer{}, err
	}
	came := make(chan remote.Answer, 1)
	go func() {
		c, err := remote.Open(text)
		if err != nil {
			came <- remote.Answer{ID: c.ID, Error: err.Error(), Class: remote.Unheard}
			return
		}
		came <- w.to.Answer(ctx, c)
	}()
	select {
	case a := <-came:
		text, err := remote.SealAnswer(a)
		if err != nil {
			return a, err
		}
		return remote.OpenAnswer(text)
	case <-ctx.Done():
		return remote.Answer{}, fmt.Errorf("%w: %w", host.ErrUnreachable, ctx.Err())
	}
}

// wide is a policy for the contract.
func wide() fence.Policy {
	return fence.Policy{
		Node: "web1", Names: append([]string{"shop.example.net"}, deploytest.Names...), Kinds: []string{"nginx", "files"}, Folders: []string{"/etc/tls", "/var/lib/certfarm"},
		Commands:    map[string][]string{"test": {"nginx", "-t"}, "reload": {"nginx", "-s", "reload"}, "start": {"nginx"}},
		Activations: 1 << 20,
	}
}

func always(p fence.Policy) func() (fence.Policy, error) {
	return func() (fence.Policy, error) { return p, nil }
}

// A deployer on the other side of a line, behind a policy, keeps the contract that it
// keeps by itself. The engine is cut after each of its calls where it is tested alone.
func TestContract(t *testing.T) {
	for kind, stride := range map[string]int{"nginx": 8, "files": 40} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			deploytest.Run(t, func(t *testing.T) deploytest.Bench {
				b := bench(t, kind)
				b.Stride = stride
				return b
			})
		})
	}
}

func bench(t *testing.T, kind string) deploytest.Bench {
	m := &hosttest.Mem{}
	f := &hosttest.Faulty{Linked: m}
	a, err := agent.NewAnswerer(agent.AnswererSetup{Kinds: target.All(), Host: f, Links: m, Policy: always(wide()), State: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
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
		if kind == "files" {
			options += `, "test": ["nginx", "-t"], "reload": ["nginx", "-s", "reload"]`
		}
		of.Deployer = remote.New(remote.Setup{
			Caller: wired{a}, Node: "web1", Lane: "node web1", Target: names[0], Kind: kind, Options: []byte("{" + options + "}"),
			Lease: deploy.Lease{Owner: "ctl1", Epoch: 7, Nonce: "n"},
		})
		return of
	}
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
}
