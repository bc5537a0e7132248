package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/plan"
	"github.com/certfarm/certfarm/internal/secret"
)

// What planning is measured with.
const (
	planned    = 100_000 // sites in the farm
	changed    = 100     // of these
	planRounds = 5
)

// measurePlan compares a farm of 100,000 sites with one that differs from it in 100:
// once two farms that are read already, and once from the text of farm.yaml to the plan
// against what was applied, with 100 sites changed, then 100 more, then 100 less.
func measurePlan(ctx context.Context, dir string) (figures []figure, err error) {
	s, err := openNew(ctx, filepath.Join(dir, "plan"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, lines := controller.Real(s, secret.Fresh(), nil)
	defer func() { err = errors.Join(err, lines.Close()) }()
	c.Version = "bench"
	ctl := controller.New(c)
	text := planText(slow)
	wanted, err := ctl.Parse(text, "farm.yaml")
	if err != nil {
		return nil, err
	}
	old, err := ctl.Parse(planText(same), "farm.yaml")
	if err != nil {
		return nil, err
	}
	diff, err := diffed(old.Farm, wanted.Farm)
	if err != nil {
		return nil, err
	}
	if _, err := ctl.Apply(ctx, planText(same), "farm.yaml", "bench", 0); err != nil {
		return nil, err
	}
	file, err := filePlan(ctx, ctl, text)
	return []figure{diff, file}, err
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

// filePlan is what people wait for, beside the YAML parser alone.
func filePlan(ctx context.Context, ctl *controller.Controller, text []byte) (figure, error) {
	f := figure{name: "plan-file", unit: "s", goal: below(1, "s"), notes: []string{fmt.Sprintf("from a farm.yaml of %d MB", len(text)>>20)}}
	var err error
	if f.value, err = planTime(ctx, ctl, text, planRounds); err != nil {
		return f, err
	}
	for _, other := range []struct {
		name string
		edit edit
	}{{"100 sites more", more}, {"100 sites less", less}} {
		took, err := planTime(ctx, ctl, planText(other.edit), planRounds)
		if err != nil {
			return f, err
		}
		f.notes = append(f.notes, fmt.Sprintf("%s: %.2f s", other.name, took))
	}
	took, err := planTime(ctx, ctl, append([]byte("# another frame: the whole text is read\n"), text...), 1)
	if err != nil {
		return f, err
	}
	f.notes = append(f.notes, fmt.Sprintf("the whole text read: %.2f s", took))
	begin := time.Now()
	err = yaml.Unmarshal(text, new(yaml.Node))
	f.floor = time.Since(begin).Seconds()
	return f, err
}

// planTime is how long the plan of a text with 100 changes takes: the median.
func planTime(ctx context.Context, ctl *controller.Controller, text []byte, rounds int) (float64, error) {
	var all []float64
	for range rounds {
		begin := time.Now()
		p, err := ctl.Plan(ctx, text, "farm.yaml")
		all = append(all, time.Since(begin).Seconds())
		if err == nil && len(p.Changes) != changed {
			err = fmt.Errorf("%d changes were planned, not %d", len(p.Changes), changed)
		}
		if err != nil {
			return 0, err
		}
	}
	return median(all), nil
}

// An edit is what becomes of every 1,000th site of a farm.yaml, given its lines.
type edit func(site string, line string) string

func same(_, line string) string { return line }

func slow(_, line string) string {
	return strings.TrimSuffix(line, "}\n") + ", policy: {soak: 1m30s}}\n"
}

func more(site, line string) string { return line + strings.ReplaceAll(line, site, site+"-more") }

func less(_, _ string) string { return "" }

// planText is a farm.yaml of sites of one name and target. Nobody asks their CA, whose
// limits are known: what orders is held against them with the whole farm.
func planText(e edit) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "farm: %s\nissuers: {%s: {acme: \"https://acme-v02.api.letsencrypt.org/directory\"}}\nnodes: {web1: {local: true, address: 127.0.0.1}}\nsites:\n", benchFarm, caName)
	for i := range planned {
		line := fmt.Sprintf("  %s: {names: [%s], issuer: %s, validation: {method: http-01, via: gateway}, targets: [{kind: files, on: web1, options: {pem: /etc/tls/%s.pem}}]}\n",
			siteName(i), dnsName(i), caName, siteName(i))
		if i%(planned/changed) == 0 {
			line = e(siteName(i), line)
		}
		b.WriteString(line)
	}
	return b.Bytes()
}
