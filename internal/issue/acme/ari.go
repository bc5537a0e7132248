package acme

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/go-acme/lego/v5/acme"
	"github.com/go-acme/lego/v5/acme/api"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue"
)

// When to ask for renewal information again (RFC 9773 §4.3).
const (
	askSoonest = time.Minute
	askLatest  = 24 * time.Hour
	askUsual   = 6 * time.Hour // the CA did not say, or did not answer to the point
)

// Suggest asks when the CA wants the leaf (PEM or DER) renewed. An answer that
// is of no use (none, garbage, a window that ends before it starts) is none: the
// suggestion then only says when to ask again. An error is one that may be gone
// soon.
//
// The chosen time is spread evenly over the window by the leaf's fingerprint
// and the window itself, instead of drawn at each poll: the same window gives
// the same time in every process, and asking often does not pull it forward.
func (a *Issuer) Suggest(ctx context.Context, leaf []byte, now time.Time) (farm.Suggestion, error) {
	cert, err := parseLeaf(leaf)
	if err != nil {
		return farm.Suggestion{}, fmt.Errorf("renewal information: %w", err)
	}
	s := farm.Suggestion{Leaf: farm.Fingerprint(cert.Raw), Ask: now.Add(askUsual)}
	if len(cert.AuthorityKeyId) == 0 {
		s.Ask = cert.NotAfter // it cannot be asked about: RFC 9773 §4.1 needs the key id
		return s, nil
	}
	id, err := api.MakeARICertID(cert)
	if err != nil {
		return farm.Suggestion{}, fmt.Errorf("renewal information of %s: %w", farm.Short(s.Leaf), err)
	}
	core, err := a.ready(ctx, a.accountURL())
	if err != nil {
		return farm.Suggestion{}, err
	}
	ctx, x := watch(ctx, "renewal-info")
	info, err := core.Certificates.GetRenewalInfo(ctx, id)
	if errors.Is(err, api.ErrNoARI) {
		s.Ask = now.Add(askLatest)
		return s, nil
	}
	if err != nil {
		return a.noAnswer(s, err, x, now)
	}
	if wait := x.wait(now); wait > 0 {
		s.Ask = now.Add(min(max(wait, askSoonest), askLatest))
	}
	w := info.SuggestedWindow
	if !w.End.After(w.Start) {
		return s, nil
	}
	s.Start, s.End = w.Start, w.End
	s.Explanation = clean(info.ExplanationURL, 500)
	s.Chosen = choose(s)
	if s.Chosen.Before(now) {
		s.Chosen = now
	}
	return s, nil
}

// noAnswer tells what may be gone soon from what will not: a CA that is down or
// busy is an error, one that answers something else is asked again at the usual
// time.
func (a *Issuer) noAnswer(s farm.Suggestion, err error, x *exchange, now time.Time) (farm.Suggestion, error) {
	fault := a.fault(doing{what: "ask for renewal information"}, err, x, now)
	later, busy := errors.AsType[*issue.Later](fault)
	switch _, told := errors.AsType[*acme.ProblemDetails](err); {
	case busy:
		later.Account = false // orders need not wait for this
		return farm.Suggestion{}, later
	case told && x.status < http.StatusInternalServerError, x.status == http.StatusOK:
		return s, nil
	}
	return farm.Suggestion{}, fault
}

// choose takes a time in the window.
func choose(s farm.Suggestion) time.Time {
	sum := sha256.Sum256([]byte(s.Leaf + s.Start.UTC().Format(time.RFC3339Nano) + s.End.UTC().Format(time.RFC3339Nano)))
	share := float64(binary.BigEndian.Uint64(sum[:8])>>11) / (1 << 53)
	return s.Start.Add(time.Duration(share * float64(s.End.Sub(s.Start))))
}
