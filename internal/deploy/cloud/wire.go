package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// How long the parts of a request may take; the whole has the deadline of its
// context.
const (
	dialWithin   = 15 * time.Second
	answerWithin = 60 * time.Second
	idleFor      = 30 * time.Second
)

// maxLag is the longest time that readers may be said to take.
const (
	day    = 24 * time.Hour
	maxLag = 14 * day
)

// errRedirect is a server that sends us elsewhere: credentials go to the address in
// farm.yaml alone.
var errRedirect = errors.New("it answers with a redirect, which is not followed: write the final address into farm.yaml")

// newTransport makes the way to a server. Roots, PEM, are in place of the system's;
// proxy is a URL; both may be empty.
func newTransport(roots, proxy string) (*http.Transport, error) {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: dialWithin}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   dialWithin,
		ResponseHeaderTimeout: answerWithin,
		IdleConnTimeout:       idleFor,
		ForceAttemptHTTP2:     true,
	}
	if roots != "" {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(roots)) {
			return nil, errors.New("ca holds no PEM certificate")
		}
	}
	if proxy != "" {
		at, err := url.Parse(proxy)
		if err != nil || at.Host == "" {
			return nil, errors.New("the proxy is not a URL; write it as http://host:port") // the text may hold a password
		}
		t.Proxy = func(r *http.Request) (*url.URL, error) {
			if local(r.URL.Hostname()) {
				return nil, nil
			}
			return at, nil
		}
	}
	return t, nil
}

// local reports an address that no proxy can reach for us: this machine's own, and
// the link's, where clouds have the service that gives a machine its credentials.
func local(name string) bool {
	a, err := netip.ParseAddr(name)
	return loopback(name) || err == nil && a.IsLinkLocalUnicast()
}

// loopback reports an address of this machine alone.
func loopback(name string) bool {
	a, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && a.IsLoopback()
}

// newClient makes a client that follows no redirect.
func newClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return errRedirect }}
}

// unreachable says of an error that is no answer that the server could not be
// reached, so that the rollout knows that the answer may have been lost.
func unreachable(err error) error {
	if errors.Is(err, host.ErrUnreachable) || errors.Is(err, errRedirect) || errors.Is(err, errForbidden) {
		return err
	}
	_, wire := errors.AsType[net.Error](err) // *url.Error is one
	if wire || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: %w", host.ErrUnreachable, err)
	}
	return err
}

// plainError is an error in our words: an SDK's are long, or quote what they sent.
type plainError struct {
	text string
	err  error
}

// Error is the text.
func (e *plainError) Error() string { return e.text }

// Unwrap is what it was made from, to be asked what it is and never printed.
func (e *plainError) Unwrap() error { return e.err }

// The shortest secret that is looked for in a text, and the shortest part of a
// longer one: servers quote what they were sent, and not always all of it.
const (
	shortest = 6
	part     = 12
)

// hide takes secrets, and parts of them, out of a text.
func hide(text string, secrets ...farm.Secret) string {
	hidden := make([]bool, len(text))
	for _, s := range secrets {
		whole := word(s)
		n := min(part, len(whole))
		for i := 0; n >= shortest && i+n <= len(text); i++ {
			if strings.Contains(whole, text[i:i+n]) {
				for j := i; j < i+n; j++ {
					hidden[j] = true
				}
			}
		}
	}
	var out strings.Builder
	for i := range len(text) {
		switch {
		case !hidden[i]:
			out.WriteByte(text[i])
		case i == 0 || !hidden[i-1]:
			out.WriteString(farm.Secret{}.String())
		}
	}
	return out.String()
}

// clean takes secrets out of what an error says.
func clean(err error, secrets ...farm.Secret) error {
	text := hide(err.Error(), secrets...)
	if text == err.Error() {
		return err
	}
	return &plainError{text, err}
}

// word is a secret as a server wants it: files end with a line feed.
func word(s farm.Secret) string { return strings.TrimSpace(string(s.Reveal())) }

// maxQuote is how much of an answer an error quotes, in bytes.
const maxQuote = 300

// quote is what a server said, on one line and short.
func quote(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(text) > maxQuote {
		text = strings.ToValidUTF8(text[:maxQuote], "") + " …"
	}
	return text
}

// first is the first error that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// lagOf reads the option lag, written as durations are in farm.yaml: with days.
func lagOf(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := duration(text)
	if err != nil || d < 0 || d > maxLag {
		return 0, &deploy.FieldError{Field: "lag", Problem: fmt.Sprintf("%q is no time up to %d days", text, maxLag/day), Hint: "as in 90m, 4h or 3d"}
	}
	return d, nil
}

func duration(text string) (time.Duration, error) {
	before, rest, found := strings.Cut(text, "d")
	if !found {
		return time.ParseDuration(text)
	}
	days, err := strconv.ParseUint(before, 10, 16)
	if err != nil || rest == "" {
		return time.Duration(days) * day, err
	}
	d, err := time.ParseDuration(rest)
	return time.Duration(days)*day + d, err
}

// checkRoots checks an option with certificates in PEM.
func checkRoots(field, roots string) error {
	if roots != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(roots)) {
		return &deploy.FieldError{Field: field, Problem: "it holds no PEM certificate", Hint: "the text of the certificate, not its file: `ca: |` and the lines below"}
	}
	return nil
}
