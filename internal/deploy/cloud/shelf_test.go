package cloud

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/farm"
)

// stub is a shelf that holds what it is told to, and loses what is put there.
type stub struct {
	held held
	kept error // what keeps answers
}

func (s *stub) look(context.Context) (held, error)               { return s.held, nil }
func (s *stub) ready(context.Context, farm.Bundle, held) error   { return nil }
func (s *stub) keeps(context.Context, held) error                { return s.kept }
func (s *stub) old(context.Context, string) (farm.Bundle, error) { return farm.Bundle{}, s.kept }
func (s *stub) put(context.Context, parcel, held) error          { return nil }
func (s *stub) keeper(undo, perish bool) (d *records, k *keeper) {
	k = &keeper{shelf: s, identity: "stub here", undo: undo, perish: perish}
	return remember(k), k
}

func TestNoWayBack(t *testing.T) {
	next := deploytest.NewBundle(t, farm.EC256)
	past, future := time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	for name, c := range map[string]struct {
		held         held
		kept         error
		undo, perish bool
		noUndo, fine bool
	}{
		"nothing is there":                   {held{}, errors.New("no"), true, true, false, true},
		"the same is there":                  {held{leaf: next.Leaf}, errors.New("no"), true, true, false, true},
		"it is kept":                         {held{leaf: "a", notAfter: future}, nil, true, true, false, true},
		"it is not kept":                     {held{leaf: "a", notAfter: future}, errors.New("no"), true, true, true, false},
		"no way back is demanded":            {held{leaf: "a", notAfter: future}, nil, false, true, true, true},
		"expired, and such are not taken":    {held{leaf: "a", notAfter: past}, nil, true, true, true, true},
		"expired, where the vault takes any": {held{leaf: "a", notAfter: past}, nil, true, false, false, true},
	} {
		s := &stub{c.held, c.kept}
		d, _ := s.keeper(c.undo, c.perish)
		r, err := d.Stage(t.Context(), stageOf(next))
		if (err == nil) != c.fine || err == nil && r.NoUndo != c.noUndo {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

func TestWhatIsPutThereIsLookedFor(t *testing.T) {
	s := &stub{}
	d, k := s.keeper(true, true)
	r, err := d.Stage(t.Context(), stageOf(deploytest.NewBundle(t, farm.EC256)))
	must(t, err)
	says(t, d.Activate(t.Context(), []deploy.Receipt{r}), []string{"was put there", "nothing of use"})
	for _, note := range []string{``, `{}`, `{"Place": "stub there", "New": "a"}`, `{"Place": "stub here"}`} {
		r.Note = []byte(note)
		for _, err := range []error{k.Activate(t.Context(), []deploy.Receipt{r}), k.Restore(t.Context(), []deploy.Receipt{r}), k.Discard(t.Context(), r)} {
			says(t, err, []string{"receipt"})
		}
	}
}

func TestNamesOfTheSiteAreCovered(t *testing.T) {
	b := deploytest.NewBundle(t, farm.EC256)
	b.Names = nil
	d, _ := (&stub{}).keeper(true, true)
	s := stageOf(b)
	s.Names = []string{"shop.example.net"}
	_, err := d.Stage(t.Context(), s)
	says(t, err, []string{"shop.example.net"})
	_, err = hooked(t, handler{newHook()}).Stage(t.Context(), s)
	says(t, err, []string{"shop.example.net"})
}
