package controller

import (
	"context"

	"github.com/certfarm/certfarm/internal/prove/http01"
)

// An Asker is a Preflight that asks over HTTP what a CA would ask.
type Asker struct {
	Port int // where the CA asks; 0: 80, as every public CA does
}

// Preflight asks every address of the names.
func (a Asker) Preflight(ctx context.Context, q PreflightQuestion) (hold bool, why string, err error) {
	findings := http01.Preflight(ctx, http01.Ask{
		Names: q.Names, Token: q.Token, Want: q.Value, Resolvers: q.Resolvers, Port: a.Port,
	})
	hold, why = http01.Verdict(findings, q.PastSafe)
	return hold, why, ctx.Err()
}
