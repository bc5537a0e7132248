package http01

import (
	"context"
	"fmt"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove"
)

// Stateless is the solver for `via: stateless`: every node answers any token by
// itself with token.thumbprint (RFC 8555 §8.1), from a rule that never changes.
// It writes nothing; it only refuses what that rule would answer wrongly.
type Stateless struct {
	// Thumbprint is that of the account key which the nodes' rule is for
	// (RFC 7638), in base64url.
	Thumbprint string
}

var _ prove.Solver = Stateless{}

// Present checks that the rule answers for the account that asks.
func (s Stateless) Present(_ context.Context, c farm.Challenge) (prove.Receipt, error) {
	if err := check(c); err != nil {
		return nil, err
	}
	if of := c.Value[len(c.Token)+1:]; s.Thumbprint == "" || of != s.Thumbprint {
		return nil, fmt.Errorf("answer the challenge for %s: the nodes' static rule answers for another account (thumbprint %q) than the one that asks (%q); let the site's issuers use one account key, or put the rule of `certfarm snippet` on every node anew",
			c.Name, s.Thumbprint, show(of))
	}
	return prove.Receipt{}, nil
}

// Ready is true at once: the rule is there already. Preflight asks whether it is.
func (Stateless) Ready(context.Context, farm.Challenge, prove.Receipt) (bool, error) {
	return true, nil
}

// CleanUp has nothing to take away.
func (Stateless) CleanUp(context.Context, farm.Challenge, prove.Receipt) error { return nil }

// StatelessQuestion is the token of a preflight where the nodes answer by
// themselves, and the answer that their rule gives for it. Nothing need be put up.
func StatelessQuestion(seed, thumbprint string) (token, want string) {
	token, _ = Question(seed)
	return token, token + "." + thumbprint
}
