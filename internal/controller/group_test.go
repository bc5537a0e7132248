package controller

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/probe"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// A tester is a deployer of a reload group whose configuration is tested at Stage.
type tester struct {
	deploy.Deployer
	tests  *int
	broken bool
}

func (d tester) Stage(_ context.Context, s deploy.Stage) (deploy.Receipt, error) {
	if s.Tested {
		return deploy.Receipt{}, nil
	}
	*d.tests++
	if d.broken {
		return deploy.Receipt{}, deploy.ErrTest
	}
	return deploy.Receipt{Tested: true}, nil
}

type testerOptions struct{}

func (testerOptions) Facts() (identity, group string, err error) { return "x", "x", nil }

// A thousand certificates of one server are one test of its configuration at Stage,
// and not a thousand, whether it passes or not.
func TestStagingAReloadGroupTestsItsConfigurationOnce(t *testing.T) {
	for name, broken := range map[string]bool{"passes": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			ctx, s, tests := t.Context(), storetest.SQLite(t, store.Options{}), 0
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			must(s.Update(ctx, func(tx *store.Tx) error {
				_, err := tx.SaveFarm(ctx, farm.Farm{Name: "f", Nodes: []farm.Node{{Name: "n", Local: true}}}, nil, "somebody", 0)
				return err
			}))
			c := New(Config{
				Store: s, Prober: probe.TLS{},
				Kinds: deploy.NewKinds(deploy.Define(deploy.Kind{Name: "x"}, testerOptions{}, func(testerOptions, deploy.Setup) (deploy.Deployer, error) {
					return tester{tests: &tests, broken: broken}, nil
				})),
				Hosts: func(context.Context, string, farm.Node, Context) (host.Host, error) { return &hosttest.Mem{}, nil },
			})
			var acts []act
			for range 10 {
				a := act{Rollout: farm.Rollout{Farm: "f", Policy: farm.Policy{Deadline: lookWithin}}}
				a.place.Target = farm.Target{Node: "n", Kind: "x", Options: json.RawMessage("{}")}
				acts = append(acts, a)
			}
			for _, a := range c.oneByOne(ctx, farm.DoStage, acts) {
				if got := a.Error != ""; got != broken {
					t.Error(errors.New(a.Error))
				}
			}
			if tests != 1 {
				t.Errorf("%d tests of one configuration", tests)
			}
		})
	}
}
