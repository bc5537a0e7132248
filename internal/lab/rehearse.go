package lab

import (
	"context"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

// A Rehearsal is a rollout of the lab, and what the nodes were seen to serve
// before and after it, by the lab itself and not by the controller.
type Rehearsal struct {
	Rollout farm.Rollout `json:"rollout"`
	Before  []Witness    `json:"before,omitempty"`
	After   []Witness    `json:"after"`
}

// First applies the lab's farm.yaml and waits for the first rollout's end.
func (l *Lab) First(ctx context.Context) (Rehearsal, error) {
	began := time.Now()
	if _, err := l.Apply(ctx); err != nil {
		return Rehearsal{}, err
	}
	return l.rehearsed(ctx, began, nil)
}

// Rehearse sets faults, by machine, renews the certificate, and waits for the
// rollout's end.
func (l *Lab) Rehearse(ctx context.Context, faults map[string]Fault) (Rehearsal, error) {
	before := l.Witness(ctx)
	began := time.Now()
	if err := l.Strike(ctx, faults); err != nil {
		return Rehearsal{}, err
	}
	return l.rehearsed(ctx, began, before)
}

// Strike sets faults, by machine, and asks for a renewal.
func (l *Lab) Strike(ctx context.Context, faults map[string]Fault) error {
	if err := l.Check(faults); err != nil {
		return err
	}
	for name, f := range faults {
		p, err := l.Part(name)
		if err != nil {
			return err
		}
		if err := p.Set(f); err != nil {
			return err
		}
	}
	return l.Controller.Renew(ctx, l.Farm, l.Site, "the lab")
}

func (l *Lab) rehearsed(ctx context.Context, began time.Time, before []Witness) (Rehearsal, error) {
	r, alarm, err := l.Controller.Await(ctx, l.Farm, l.Site, began)
	if err != nil {
		return Rehearsal{}, fmt.Errorf("waiting for the rollout: %w", err)
	}
	if r.ID == "" {
		return Rehearsal{}, &controller.Refusal{Problem: alarm.Text, Hint: alarm.Hint}
	}
	return Rehearsal{Rollout: r, Before: before, After: l.Witness(ctx)}, nil
}

// Healed waits until everything serves the version that it should, as a node
// that was down does some time after it came back.
func (l *Lab) Healed(ctx context.Context, version string) error {
	d, err := l.Controller.Describe(ctx, l.Farm, l.Site)
	if err != nil {
		return err
	}
	for _, v := range d.Versions {
		if v.ID != version {
			continue
		}
		for _, p := range l.Parts() {
			if p.HTTPSAddr() == "" {
				continue
			}
			if err := Await(ctx, p.HTTPSAddr(), l.Layout.Names[0], v.Leaves[0].Fingerprint); err != nil {
				return err
			}
		}
	}
	return nil
}
