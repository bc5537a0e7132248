// Package outbound is how Certfarm calls what farm.yaml names: over HTTP or by a
// connection of its own, guarded at the dialer, and signed where the other end can
// check that.
//
// Its invariants: an address is judged after its name was looked up and just before it
// is dialled; no redirect is followed; and what an error quotes of an answer holds no
// secret that Hide was told of.
package outbound

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/farm"
)

// How long the parts of a request may take; the whole has the deadline of its
// context.
const (
	dialWithin   = 15 * time.Second
	answerWithin = 60 * time.Second
	idleFor      = 30 * time.Second
)

// ErrRedirect is a server that sends us elsewhere: credentials go to the address in
// farm.yaml alone.
var ErrRedirect = errors.New("it answers with a redirect, which is not followed: write the final address into farm.yaml")

// NewTransport makes the way to a server. Roots, PEM, are in place of the system's;
// proxy is a URL; both may be empty.
func NewTransport(roots, proxy string) (*http.Transport, error) {
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
	return Loopback(name) || err == nil && a.IsLinkLocalUnicast()
}

// Loopback reports an address of this machine alone.
func Loopback(name string) bool {
	a, err := netip.ParseAddr(name)
	return name == "localhost" || err == nil && a.IsLoopback()
}

// NewClient makes a client that follows no redirect.
func NewClient(t http.RoundTripper) *http.Client {
	return &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return ErrRedirect }}
}

// Plain is an error in our words: an SDK's are long, or quote what they sent. What it was
// made from may be asked what it is, and is never printed.
func Plain(text string, err error) error { return &plainError{text, err} }

type plainError struct {
	text string
	err  error
}

// Error is the text.
func (e *plainError) Error() string { return e.text }

// Unwrap is what it was made from.
func (e *plainError) Unwrap() error { return e.err }

// The shortest secret that is looked for in a text, and the shortest part of a
// longer one: servers quote what they were sent, and not always all of it.
const (
	shortest = 6
	part     = 12
)

// Hide takes secrets, and parts of them, out of a text.
func Hide(text string, secrets ...farm.Secret) string {
	hidden := make([]bool, len(text))
	for _, s := range secrets {
		whole := Word(s)
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

// Clean takes secrets out of what an error says.
func Clean(err error, secrets ...farm.Secret) error {
	text := Hide(err.Error(), secrets...)
	if text == err.Error() {
		return err
	}
	return Plain(text, err)
}

// Word is a secret as a server wants it: files end with a line feed.
func Word(s farm.Secret) string { return strings.TrimSpace(string(s.Reveal())) }

// MaxQuote is how much of an answer an error quotes, in bytes.
const MaxQuote = 300

// Quote is what a server said, on one line and short.
func Quote(text string) string {
	text = strings.Join(strings.FieldsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }), " ")
	if len(text) > MaxQuote {
		text = strings.ToValidUTF8(text[:MaxQuote], "") + " …"
	}
	return text
}
