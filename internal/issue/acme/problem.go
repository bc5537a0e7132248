package acme

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/go-acme/lego/v5/acme"

	"github.com/certfarm/certfarm/internal/issue"
)

// doing is what was being done, for errors.
type doing struct {
	what  string
	names []string
}

// String is "open an order for a.example, b.example".
func (d doing) String() string {
	switch n := len(d.names); {
	case n == 0:
		return d.what
	case n > 3:
		return fmt.Sprintf("%s for %s and %d more", d.what, strings.Join(d.names[:3], ", "), n-3)
	}
	return d.what + " for " + strings.Join(d.names, ", ")
}

// How long to wait where the CA says that it must be, and not how long.
const (
	waitLimited = 10 * time.Minute
	waitBusy    = time.Minute
	waitAccount = time.Hour // for a person to act
	waitPaused  = 24 * time.Hour
)

// fault says what an error means for the order: *issue.Later, an error that
// wraps issue.Refused, or one that may be tried again as it is.
func (a *Issuer) fault(d doing, err error, x *exchange, now time.Time) error {
	at := fmt.Sprintf("%s at %s", d, a.c.Issuer.Name)
	p, told := errors.AsType[*acme.ProblemDetails](err)
	if !told {
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("%s: %w", at, err)
		}
		return fmt.Errorf("%s: %s", at, clean(err.Error(), 500))
	}
	if wait, account, limited := limit(p, x, now); limited {
		return &issue.Later{Until: now.Add(jitter(wait)), Account: account,
			Err: fmt.Errorf("%s: the CA asks us to wait: %s", at, saying(p))}
	}
	if accountFault(p) {
		return &issue.Later{Until: now.Add(waitAccount), Account: true,
			Err: fmt.Errorf("%s: %w: %s; %s", at, issue.AccountLost, saying(p), accountHint(p))}
	}
	if final(p, x.status) {
		return refusal(at, p)
	}
	return fmt.Errorf("%s: %s", at, saying(p))
}

func refusal(at string, p *acme.ProblemDetails) error {
	text := fmt.Sprintf("%s: %%w: %s", at, strings.ReplaceAll(saying(p), "%", "%%"))
	if hint := hints[short(p.Type)]; hint != "" {
		text += "; " + hint
	}
	err := fmt.Errorf(text, issue.Refused)
	if unanswered(p) {
		return &issue.Unanswered{Err: err}
	}
	return err
}

// noServer is how a CA tells that a balancer answered for a server that was not
// there (RFC 9110 §15.6.3 to §15.6.5).
var noServer = regexp.MustCompile(`\b50[234]\b`)

// unanswered reports that each of the CA's questions that failed reached nobody.
func unanswered(p *acme.ProblemDetails) bool {
	silent := func(kind, detail string) bool {
		return short(kind) == "connection" || short(kind) == "unauthorized" && noServer.MatchString(detail)
	}
	if len(p.SubProblems) == 0 {
		return silent(p.Type, p.Detail)
	}
	return !slices.ContainsFunc(p.SubProblems, func(s acme.SubProblem) bool { return !silent(s.Type, s.Detail) })
}

// limit says whether a refusal is for now only, and for how long. Let's Encrypt
// says that it is busy as 503 of the type rateLimited.
func limit(p *acme.ProblemDetails, x *exchange, now time.Time) (wait time.Duration, account, limited bool) {
	wait = x.wait(now)
	switch {
	case x.status == http.StatusServiceUnavailable && (wait > 0 || p.Type == acme.RateLimitedErrorType):
		if wait == 0 {
			wait = waitBusy
		}
		return wait, true, true
	case x.status == http.StatusTooManyRequests || p.Type == acme.RateLimitedErrorType:
		if wait == 0 {
			wait = saidIn(p.Detail, now)
		}
		return wait, !ofNames(p.Detail), true
	}
	return 0, false, false
}

var retryAfterText = regexp.MustCompile(`retry after (\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)`)

// saidIn is how long a text asks to wait: "…, retry after 2026-08-05 10:11:12 UTC: see …".
func saidIn(detail string, now time.Time) time.Duration {
	if paused(detail) {
		return waitPaused
	}
	m := retryAfterText.FindStringSubmatch(detail)
	if m == nil {
		return waitLimited
	}
	until, err := time.Parse(time.DateTime, m[1]+" "+m[2])
	if err != nil || !until.After(now) {
		return waitLimited
	}
	return min(until.Sub(now), maxWait)
}

// ofNames reports that a limit is one of the names in the order and not of the
// account, so that orders for other names need not wait. The words are Let's
// Encrypt's; a limit told in other words counts for the whole account.
func ofNames(detail string) bool {
	return strings.Contains(detail, "already issued") || strings.Contains(detail, "failed authorizations") || paused(detail)
}

// paused reports that a name failed so often that a person must let it go on, at
// a link that the CA gives (Let's Encrypt: 1,152 failures in a row).
func paused(detail string) bool {
	return strings.Contains(detail, "temporarily prevented from requesting")
}

func accountFault(p *acme.ProblemDetails) bool {
	return p.Type == acme.AccountDoesNotExistErrorType || p.Type == acme.UserActionRequiredErrorType || deactivated(p)
}

// deactivated reports that the account was ended at the CA (RFC 8555 §7.3.6),
// which says so by a type that stands for much else; the words are Boulder's.
func deactivated(p *acme.ProblemDetails) bool {
	return short(p.Type) == "unauthorized" && (strings.Contains(p.Detail, "Account is not valid") || strings.Contains(p.Detail, "exists but is deactivated"))
}

// final reports that the CA's no is its answer to this order. A refusal that is
// no problem document, or an error of the CA's own, may be another one's or
// over soon.
func final(p *acme.ProblemDetails, status int) bool {
	switch p.Type {
	case "", "about:blank", acme.ServerInternalErrorType, acme.BadNonceErrorType, acme.OrderNotReadyErrorType:
		return false
	}
	return status < http.StatusInternalServerError
}

// short is a problem's type without its name space.
func short(kind string) string { return strings.TrimPrefix(kind, "urn:ietf:params:acme:error:") }

// saying is what a problem says: the names it is about, and what the CA saw.
func saying(p *acme.ProblemDetails) string {
	var parts []string
	for _, s := range p.SubProblems {
		part := s.Detail
		if s.Identifier.Value != "" {
			part = s.Identifier.Value + ": " + part
		}
		if s.Type != "" {
			part += " (" + short(s.Type) + ")"
		}
		parts = append(parts, part)
	}
	if len(parts) > 0 {
		return strings.Join(parts, "; ")
	}
	text := p.Detail
	if text == "" {
		text = fmt.Sprintf("HTTP status %d", p.HTTPStatus)
	}
	if p.Type != "" {
		text += " (" + short(p.Type) + ")"
	}
	if p.Instance != "" {
		text += ", see " + p.Instance
	}
	return text
}

func accountHint(p *acme.ProblemDetails) string {
	if deactivated(p) {
		return hints["accountDoesNotExist"]
	}
	return hints[short(p.Type)]
}

// hints say what a person can do, by problem type.
var hints = map[string]string{
	"rejectedIdentifier":      "this CA never issues for that name: take it out of the site, or use another issuer",
	"unsupportedIdentifier":   "this CA does not issue for that sort of name: use another issuer",
	"caa":                     "a CAA record forbids this CA, account or method: change the record, or use another issuer",
	"dns":                     "the CA found no usable DNS answer: check the name's A and AAAA records and its DNSSEC from outside",
	"connection":              "the CA could not reach port 80: open it to the internet at every address of the name, AAAA too",
	"unauthorized":            "of a name: another answer than ours came back, so route /.well-known/acme-challenge/ on every server behind the name to certfarm (docs/validation.md); of an account: check the issuer's eab",
	"incorrectResponse":       "another answer than ours came back: route /.well-known/acme-challenge/ on every server behind the name to certfarm (docs/validation.md)",
	"tls":                     "a redirect of the challenge path led to a TLS error",
	"badCSR":                  "the CA does not sign that key type or these names: change key_types or names",
	"invalidProfile":          "name a profile that the CA offers",
	"externalAccountRequired": "get a key id and a MAC key from the CA and give them as the issuer's eab",
	"invalidContact":          "correct the issuer's contact",
	"unsupportedContact":      "correct the issuer's contact: mail addresses only",
	"accountDoesNotExist":     "no second account is made by itself, since CAA records and renewal information name the first; restore the account's key from a backup, or remove the stored account to register a new one",
	"userActionRequired":      "the CA wants a person to act: read what it says there",
}
