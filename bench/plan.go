package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// What planning is measured with.
const (
	planned    = 100_000 // sites in the farm
	changed    = 100     // of these
	planRounds = 5
)

// measurePlan compares a farm of 100,000 sites with one that differs from it in 100:
// once the farm that the store has with one that is read already, which is what a
// change by form does, and once from the text of farm.yaml to the plan.
func measurePlan(ctx context.Context, dir string) (figures []figure, err error) {
	s, err := openNew(ctx, filepath.Join(dir, "plan"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, lines := controller.Real(s, secret.Fresh(), nil)
	defer func() { err = errors.Join(err, lines.Close()) }()
	ctl := controller.New(c)
	text := planText()
	wanted, err := ctl.Parse(text, "farm.yaml")
	if err != nil {
		return nil, err
	}
	old := wanted.Farm
	old.Sites = slices.Clone(old.Sites)
	for i := 0; i < planned; i += planned / changed {
		old.Sites[i].Policy.Soak += time.Minute
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, old, text, "bench", 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	diff, err := diffed(old, wanted.Farm)
	if err != nil {
		return nil, err
	}
	whole, err := wholePlan(ctx, ctl, text)
	return []figure{diff, whole}, err
}

// diffed is what finding the changes costs, beside comparing all that there is.
func diffed(old, wanted farm.Farm) (figure, error) {
	f := figure{name: "plan-changes", unit: "s", goal: below(1, "s"), notes: []string{fmt.Sprintf("%d changes in a farm of %d: median of %d", changed, planned, planRounds)}}
	var ours, floor []float64
	for range planRounds {
		begin := time.Now()
		n := len(plan.Diff(old, wanted))
		ours = append(ours, time.Since(begin).Seconds())
		if n != changed {
			return f, fmt.Errorf("%d changes were found, not %d", n, changed)
		}
		begin, n = time.Now(), 0
		for i := range old.Sites {
			if !reflect.DeepEqual(old.Sites[i], wanted.Sites[i]) {
				n++
			}
		}
		floor = append(floor, time.Since(begin).Seconds())
	}
	f.value, f.floor = median(ours), median(floor)
	return f, nil
}

// wholePlan is what people wait for, beside the YAML parser alone.
func wholePlan(ctx context.Context, ctl *controller.Controller, text []byte) (figure, error) {
	f := figure{name: "plan-file", unit: "s", goal: below(1, "s"), notes: []string{fmt.Sprintf("from a farm.yaml of %d MB", len(text)>>20)}}
	begin := time.Now()
	p, err := ctl.Plan(ctx, text, "farm.yaml")
	f.value = time.Since(begin).Seconds()
	if err == nil && len(p.Changes) != changed {
		err = fmt.Errorf("%d changes were planned, not %d", len(p.Changes), changed)
	}
	if err != nil {
		return f, err
	}
	begin = time.Now()
	err = yaml.Unmarshal(text, new(yaml.Node))
	f.floor = time.Since(begin).Seconds()
	return f, err
}

// planText is a farm.yaml of sites of one name and target.
func planText() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "farm: %s\nissuers: {%s: {acme: \"https://ca.bench.test/dir\"}}\nnodes: {web1: {local: true, address: 127.0.0.1}}\nsites:\n", benchFarm, caName)
	for i := range planned {
		fmt.Fprintf(&b, "  %s: {names: [%s], issuer: %s, validation: {method: http-01, via: gateway}, targets: [{kind: files, on: web1, options: {pem: /etc/tls/%s.pem}}]}\n",
			siteName(i), dnsName(i), caName, siteName(i))
	}
	return b.Bytes()
}
