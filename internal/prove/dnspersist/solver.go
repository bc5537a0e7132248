package dnspersist

import (
	"context"
	"fmt"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove"
)

// A Solver proves names by records that people set: it needs no rights in any
// zone, and so puts nothing up and takes nothing away.
type Solver struct {
	Lookup lookup.Client
	Now    func() time.Time // nil: time.Now
}

var _ prove.Solver = Solver{}

// Present only makes sure that the challenge is one. The receipt is the record
// that ought to be there, as a zone file has it.
func (s Solver) Present(_ context.Context, c farm.Challenge) (prove.Receipt, error) {
	if c.Type != farm.DNSPersist01 {
		return nil, fmt.Errorf("answer the challenge for %q: it is no %s challenge", c.Name, farm.DNSPersist01)
	}
	set, err := wanted(c)
	if err != nil {
		return nil, err
	}
	return prove.Receipt(set.String()), nil
}

// Ready reports whether every name server that answers has a right record. Check
// tells what is wrong with it.
func (s Solver) Ready(ctx context.Context, c farm.Challenge, _ prove.Receipt) (bool, error) {
	now := time.Now
	if s.Now != nil {
		now = s.Now
	}
	sight, err := Check(ctx, s.Lookup, c, now())
	return err == nil && sight.Matches, err
}

// CleanUp leaves the record, for the next time.
func (s Solver) CleanUp(context.Context, farm.Challenge, prove.Receipt) error { return nil }
