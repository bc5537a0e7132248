package dns01

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/lookup"
	"github.com/certfarm/certfarm/internal/prove"
)

// Silence is how long a name server that does not answer is waited for, unless
// said otherwise.
const Silence = 2 * time.Minute

// A Solver proves names by TXT records that its Writer writes.
type Solver struct {
	Writer Writer
	// Lookup asks where the record is and who has it: the name servers of its zone
	// themselves, or only the resolvers where Lookup.Recursive says so.
	Lookup lookup.Client
	// Delegate says where the record of a name is, where no CNAME says it: the name
	// or pattern (farm.Validation.Names) to the record's full name.
	Delegate map[string]string
	// Silent is how long a name server that does not answer is waited for, before
	// it is left out; 0: Silence. At least one must have the value in any case, and
	// one that answers without it is never left out.
	Silent time.Duration
	Now    func() time.Time // nil: time.Now
}

var _ prove.Solver = Solver{}

// note is what a receipt says.
type note struct {
	Zone  string    `json:"zone"`
	Name  string    `json:"name"`
	Value string    `json:"value"`
	At    time.Time `json:"at"` // when the record was written
}

func (n note) record(c farm.Challenge) Record {
	return Record{Zone: n.Zone, Name: n.Name, Value: n.Value, KeyAuth: c.KeyAuth}
}

var (
	// tokens are what a CA may send (RFC 8555 §8.3: base64url, at least 128 bits).
	tokens = regexp.MustCompile(`^[A-Za-z0-9_-]{22,256}$`)
	// values are SHA-256 digests in base64url (RFC 8555 §8.4). Nothing else is ever
	// put into a zone or taken out of it.
	values = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)
)

// Present writes the record, beside whatever else is at its name. The receipt says
// where it is, so that a CNAME changed meanwhile leaves nothing of ours behind.
func (s Solver) Present(ctx context.Context, c farm.Challenge) (prove.Receipt, error) {
	n, at, err := s.locate(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("answer the challenge for %q: %w", c.Name, err)
	}
	if err := s.Writer.Put(ctx, n.record(c)); err != nil {
		err = fmt.Errorf("answer the challenge for %s: write the TXT record %s in the zone %s: %w", c.Name, n.Name, n.Zone, err)
		if len(at.Path) == 1 {
			err = fmt.Errorf("%w; if that zone cannot be written, set a CNAME at %s to a name in one that can", err, n.Name)
		}
		return nil, err
	}
	n.At = s.now()
	return json.Marshal(n)
}

// Ready reports whether every name server of the zone has the value, asked twice.
// Spread tells which do not.
func (s Solver) Ready(ctx context.Context, c farm.Challenge, r prove.Receipt) (bool, error) {
	n, err := s.recall(ctx, c, r)
	if err != nil {
		return false, fmt.Errorf("look for the answer to the challenge for %q: %w", c.Name, err)
	}
	for range 2 { // once more when all agree: one address may be several servers
		sights, err := s.look(ctx, n)
		if err != nil {
			return false, fmt.Errorf("look for the answer to the challenge for %s: %w", c.Name, err)
		}
		if !agreed(sights, s.now().Sub(n.At), cmp.Or(s.Silent, Silence)) {
			return false, nil
		}
	}
	return true, nil
}

// CleanUp takes the value away where the receipt says it is, or else where the
// name's record is now.
func (s Solver) CleanUp(ctx context.Context, c farm.Challenge, r prove.Receipt) error {
	n, err := s.recall(ctx, c, r)
	if err != nil {
		return fmt.Errorf("take away the answer for %q: %w", c.Name, err)
	}
	if err := s.Writer.Remove(ctx, n.record(c)); err != nil {
		return fmt.Errorf("take away the answer for %s: the TXT value %s at %s in the zone %s: %w", c.Name, n.Value, n.Name, n.Zone, err)
	}
	return nil
}

// Spread is what each name server of the zone says of the value now, for people.
func (s Solver) Spread(ctx context.Context, r prove.Receipt) ([]Sight, error) {
	n, ok := read(r)
	if !ok {
		return nil, fmt.Errorf("look for a TXT record: the receipt %.100q does not say which", r)
	}
	return s.look(ctx, n)
}

// recall is what the receipt says, or what the challenge alone does.
func (s Solver) recall(ctx context.Context, c farm.Challenge, r prove.Receipt) (note, error) {
	if n, ok := read(r); ok {
		return n, nil
	}
	n, _, err := s.locate(ctx, c)
	n.At = s.now() // nobody knows since when
	return n, err
}

// read reads a receipt; one that does not name one of our records is none.
func read(r prove.Receipt) (n note, ok bool) {
	err := json.Unmarshal(r, &n)
	in := n.Name == n.Zone || strings.HasSuffix(n.Name, "."+n.Zone)
	return n, err == nil && n.Zone != "" && in && values.MatchString(n.Value)
}

// locate finds where the record of a challenge is.
func (s Solver) locate(ctx context.Context, c farm.Challenge) (note, Place, error) {
	if c.Type != farm.DNS01 || !tokens.MatchString(c.Token) || !values.MatchString(c.Value) {
		return note{}, Place{}, errNoChallenge
	}
	p, err := Where(ctx, s.Lookup, s.Delegate, strings.TrimPrefix(c.Name, "*."))
	return note{Zone: p.Zone, Name: p.Name, Value: c.Value}, p, err
}

func (s Solver) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}
