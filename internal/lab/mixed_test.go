package lab_test

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lab"
)

// mixedFarm is a mixed farm that serves version 1 everywhere.
func mixedFarm(t *testing.T, find lab.Finder) (l *lab.Lab, serves string) {
	t.Helper()
	policy := lab.MixedPolicy()
	policy.Soak = 100 * time.Millisecond
	policy.Deadline, policy.HealthyDeadline = 20*time.Second, 4*time.Second
	l, err := lab.Start(t.Context(), lab.Options{
		Layout: lab.Layout{Dir: t.TempDir(), Mixed: true, Poll: 200 * time.Millisecond, Find: find},
		File:   lab.FarmFile{Policy: policy},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Log(l.Mixture())
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first, err := l.First(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if first.Rollout.Outcome != farm.Done {
		t.Fatalf("version 1 ended as %s: %s", first.Rollout.Outcome, first.Rollout.Why)
	}
	everywhere(t, first.After, first.After[0].Serves)
	return l, first.After[0].Serves
}

// everywhere demands that all serve a leaf: the nodes, and those that read the share
// and the vault.
func everywhere(t *testing.T, seen []lab.Witness, leaf string) {
	t.Helper()
	var names []string
	for _, w := range seen {
		names = append(names, w.Node)
		if w.Serves == "" || w.Serves != leaf {
			t.Errorf("%s serves %s, not %s (%s)", w.Node, farm.Short(w.Serves), farm.Short(leaf), w.Error)
		}
	}
	if got := strings.Join(names, " "); got != "web1 web2 edge iis1 iis2 app1 app2" {
		t.Errorf("asked %s", got)
	}
}

// With nothing installed everything is a stand-in, and the certificate still goes
// everywhere.
func TestMixedFarmOfStandIns(t *testing.T) {
	t.Parallel()
	l, _ := mixedFarm(t, func(string) (string, error) { return "", exec.ErrNotFound })
	if want := "mixed farm: Apache, HAProxy, Samba, the IIS readers and Key Vault are stand-ins"; l.Mixture() != want {
		t.Errorf("it says %q", l.Mixture())
	}
	if f := string(mustPart(t, l, "web1").Faults()[7]); f != string(lab.WrongChain) {
		t.Errorf("a stand-in does not know %s but %s", lab.WrongChain, f)
	}
}

// A reader of the vault, the last target, goes on with the old certificate: Apache,
// HAProxy and the share have the new one by then, and all get the old one back.
func TestMixedFarmGoesBackFromItsLastTarget(t *testing.T) {
	t.Parallel()
	l, v1 := mixedFarm(t, nil)
	for _, name := range []string{"Apache 2.", "HAProxy ", "Samba 4."} {
		if !strings.Contains(l.Mixture(), name) {
			t.Skipf("not all real servers are here (apache2, haproxy, and smbd as root): %s", l.Mixture())
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	began := time.Now()
	got, err := l.Rehearse(ctx, map[string]lab.Fault{"app2": {Kind: lab.BadReload}})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s after %s: %s", got.Rollout.Outcome, time.Since(began).Round(time.Millisecond), got.Rollout.Why)
	if got.Rollout.Outcome != farm.RolledBack || !strings.Contains(got.Rollout.Why, "shop/vault") {
		t.Errorf("ended as %s: %s", got.Rollout.Outcome, got.Rollout.Why)
	}
	for _, s := range got.Rollout.Steps {
		if s.State != farm.Restored {
			t.Errorf("%s is %s: %s", s.Target, s.State, s.Error)
		}
	}
	everywhere(t, got.After, v1)
}

func mustPart(t *testing.T, l *lab.Lab, name string) lab.Machine {
	t.Helper()
	p, err := l.Part(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// What there is no such machine for, or what it does not know, is said before
// anything is struck.
func TestMixedFarmTellsItsFaults(t *testing.T) {
	t.Parallel()
	m, err := lab.StartMachines(lab.Layout{Dir: t.TempDir(), Mixed: true, Find: func(string) (string, error) { return "", exec.ErrNotFound }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	for fault, want := range map[string]string{
		"web3=down":           "there are web1, web2, edge, iis1, iis2, app1, app2 and vault; did you mean web1?",
		"iis1=ssh-down":       "iis1 does not know the fault ssh-down; there are down, bad-reload, wrong-chain",
		"vault=bad-reload":    "vault does not know the fault bad-reload; there are down, hangs, refuses",
		"web1=refuses":        "web1 does not know the fault refuses; there are ssh-down, ",
		"edge=dies-on-reload": "edge does not know the fault dies-on-reload; there are ",
		"app1=down:3s":        "",
	} {
		name, f, err := lab.ParseFault(fault)
		if err != nil {
			t.Fatal(err)
		}
		err = m.Check(map[string]lab.Fault{name: f})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", fault, err)
		}
	}
}
