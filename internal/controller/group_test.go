package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/synctest"

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

// grouped is n acts on one reload group of one node.
func grouped(t *testing.T, d deploy.Deployer, n int) (*Controller, []act) {
	t.Helper()
	s := storetest.SQLite(t, store.Options{})
	if err := s.Update(t.Context(), func(tx *store.Tx) error {
		_, err := tx.SaveFarm(t.Context(), farm.Farm{Name: "f", Nodes: []farm.Node{{Name: "n", Local: true}}}, nil, "somebody", 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	c := New(Config{
		Store: s, Prober: probe.TLS{},
		Kinds: deploy.NewKinds(deploy.Define(deploy.Kind{Name: "x"}, testerOptions{}, func(testerOptions, deploy.Setup) (deploy.Deployer, error) {
			return d, nil
		})),
		Hosts: func(context.Context, string, farm.Node, Context) (host.Host, error) { return &hosttest.Mem{}, nil },
	})
	var acts []act
	for i := range n {
		a := act{Rollout: farm.Rollout{ID: strconv.Itoa(i), Farm: "f", Policy: farm.Policy{Deadline: lookWithin}}}
		a.place.Target = farm.Target{Node: "n", Kind: "x", Options: json.RawMessage("{}")}
		a.step.Receipt = fmt.Appendf(nil, `{"Note": %d}`, i)
		acts = append(acts, a)
	}
	return c, acts
}

// A switcher is a deployer of a reload group that counts its activations.
type switcher struct {
	deploy.Deployer
	switches *int
	activate func(ctx context.Context, rs []deploy.Receipt) error
}

func (d switcher) Activate(ctx context.Context, rs []deploy.Receipt) error {
	*d.switches++
	return d.activate(ctx, rs)
}

// One certificate that is refused does not hold the others of its reload group, and is
// found by halves; but a node that is not reached is not asked again for each half,
// nor is one waited for again and again that does not answer.
func TestAReloadGroupIsHalvedWhereThatHelps(t *testing.T) {
	refuse := errors.New("refused")
	hangs := func(ctx context.Context, _ []deploy.Receipt) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		activate     func(ctx context.Context, rs []deploy.Receipt) error
		most, failed int
	}{
		"one is bad": {most: 9, failed: 1, activate: func(_ context.Context, rs []deploy.Receipt) error {
			if slices.ContainsFunc(rs, func(r deploy.Receipt) bool { return string(r.Note) == "5" }) {
				return refuse
			}
			return nil
		}},
		"it is gone": {most: 1, failed: 16, activate: func(context.Context, []deploy.Receipt) error { return host.ErrUnreachable }},
		"it hangs":   {most: 8, failed: 16, activate: hangs},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				switches, failed := 0, 0
				ctl, acts := grouped(t, switcher{switches: &switches, activate: c.activate}, 16)
				for _, a := range ctl.together(t.Context(), farm.DoActivate, acts) {
					if a.Error != "" {
						failed++
					}
				}
				if switches > c.most || failed != c.failed {
					t.Errorf("%d activations, want %d at most; %d failed, want %d", switches, c.most, failed, c.failed)
				}
			})
		})
	}
}

// A thousand certificates of one server are one test of its configuration at Stage,
// and not a thousand, whether it passes or not.
func TestStagingAReloadGroupTestsItsConfigurationOnce(t *testing.T) {
	for name, broken := range map[string]bool{"passes": false, "fails": true} {
		t.Run(name, func(t *testing.T) {
			tests := 0
			c, acts := grouped(t, tester{tests: &tests, broken: broken}, 10)
			for _, a := range c.oneByOne(t.Context(), farm.DoStage, acts) {
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
