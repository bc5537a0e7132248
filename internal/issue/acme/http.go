package acme

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/go-acme/lego/v5/acme"
)

// What is read of an answer at most. No honest one comes near.
const (
	maxBody    = 1 << 20
	maxProblem = 64 << 10
)

// newTransport makes what the requests of one issuer share.
func newTransport(roots, proxy string) (http.RoundTripper, error) {
	t := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:   15 * time.Second,
		ResponseHeaderTimeout: 45 * time.Second,
		IdleConnTimeout:       90 * time.Second,
		MaxIdleConnsPerHost:   64,
		ForceAttemptHTTP2:     true,
	}
	if proxy != "" {
		at, err := url.Parse(proxy)
		if err != nil || at.Host == "" {
			return nil, errors.New("the proxy is not a URL; write it as http://host:port") // the text may hold a password
		}
		t.Proxy = http.ProxyURL(at)
	}
	if roots != "" {
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(roots)) {
			return nil, errors.New("the roots hold no PEM certificate")
		}
	}
	return t, nil
}

// noRedirect refuses redirects: a CA's resources have their own URLs, and a
// redirected POST would be sent as a GET.
func noRedirect(r *http.Request, _ []*http.Request) error {
	return fmt.Errorf("the CA redirects to %s; put the final URL into the issuer's directory", r.URL.Redacted())
}

// An exchange is what lego does not tell of the last answer to a request.
type exchange struct {
	status     int
	retryAfter string
	date       string
	alternates []string // URLs of other chains (RFC 8555 §7.4.2)

	endpoint string // what is asked
}

type exchangeKey struct{}

// watch returns a context whose requests to an endpoint, made one after another, are
// noted in the exchange.
func watch(ctx context.Context, endpoint string) (context.Context, *exchange) {
	x := &exchange{endpoint: endpoint}
	return context.WithValue(ctx, exchangeKey{}, x), x
}

// A guard stands between lego and the network: it notes what lego drops
// (Retry-After above all), bounds what is read, and turns every refusal into a
// problem document, so that lego neither reflects a foreign page into an error
// nor falls over one that is not JSON.
type guard struct {
	base http.RoundTripper
	tell func(Request)                   // nil: nobody counts
	lent atomic.Pointer[context.Context] // for the one request that lego makes without a context
}

// RoundTrip sends one request.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if lent := g.lent.Load(); lent != nil {
		r = r.WithContext(*lent)
	}
	x, _ := r.Context().Value(exchangeKey{}).(*exchange)
	began := time.Now()
	resp, err := g.base.RoundTrip(r)
	g.count(r, x, resp, time.Since(began))
	if err != nil {
		return nil, err
	}
	if x != nil {
		x.note(r.URL, resp)
	}
	resp.Header.Del("Retry-After") // lego would log one that it cannot read
	if resp.StatusCode >= http.StatusBadRequest {
		return tidy(resp), nil
	}
	resp.Body = &bounded{ReadCloser: resp.Body, left: maxBody}
	return resp, nil
}

// A Request is one request to a CA, for who counts them.
type Request struct {
	Endpoint string        // directory, new-nonce, new-account, new-order, order, authz, challenge, finalize, certificate, renewal-info, revoke, account or other
	Code     int           // the HTTP status; 0: there was no answer
	Took     time.Duration // until the answer's header
}

// count tells of one request. The only one with HEAD is for a nonce (RFC 8555 §7.2).
func (g *guard) count(r *http.Request, x *exchange, resp *http.Response, took time.Duration) {
	if g.tell == nil {
		return
	}
	one := Request{Endpoint: "other", Took: took}
	switch {
	case r.Method == http.MethodHead:
		one.Endpoint = "new-nonce"
	case x != nil:
		one.Endpoint = x.endpoint
	}
	if resp != nil {
		one.Code = resp.StatusCode
	}
	g.tell(one)
}

var alternateLink = regexp.MustCompile(`<([^<>]+)>[^,<]*;\s*rel="?alternate"?`)

func (x *exchange) note(asked *url.URL, resp *http.Response) {
	*x = exchange{endpoint: x.endpoint, status: resp.StatusCode, retryAfter: resp.Header.Get("Retry-After"), date: resp.Header.Get("Date")}
	for _, link := range resp.Header.Values("Link") {
		for _, m := range alternateLink.FindAllStringSubmatch(link, -1) {
			if to, err := asked.Parse(m[1]); err == nil {
				x.alternates = append(x.alternates, to.String())
			}
		}
	}
}

// tidy gives an answer that refuses a problem document as body: the CA's, or
// one that says there was none.
func tidy(resp *http.Response) *http.Response {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	_ = resp.Body.Close()
	var p acme.ProblemDetails
	if err != nil || len(bytes.TrimSpace(body)) == 0 || bytes.TrimSpace(body)[0] != '{' || json.Unmarshal(body, &p) != nil {
		p = acme.ProblemDetails{Detail: fmt.Sprintf("HTTP status %d without a problem document", resp.StatusCode)}
	}
	p.HTTPStatus = resp.StatusCode
	p.Type, p.Detail, p.Instance = clean(p.Type, 100), clean(p.Detail, 1000), clean(p.Instance, 300)
	for i, s := range p.SubProblems {
		p.SubProblems[i].Type, p.SubProblems[i].Detail = clean(s.Type, 100), clean(s.Detail, 500)
		p.SubProblems[i].Identifier.Value = clean(s.Identifier.Value, 253)
	}
	text, err := json.Marshal(p)
	if err != nil {
		text = []byte("{}") // strings and numbers only: cannot happen
	}
	resp.Body = io.NopCloser(bytes.NewReader(text))
	resp.ContentLength = int64(len(text))
	return resp
}

// A bounded body is an error when it is longer than it may be.
type bounded struct {
	io.ReadCloser
	left int64
}

// Read reads on, up to the bound.
func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, fmt.Errorf("the answer is longer than %d bytes", maxBody)
	}
	return n, err
}

// maxWait keeps a Retry-After of any size a time that can be computed with and
// stored. It is still obeyed and shown.
const maxWait = 10 * 365 * 24 * time.Hour

// wait is how long the CA asked us to wait (RFC 9110 §10.2.3): seconds, or a
// date, which is held against the CA's own clock. 0: it did not say.
func (x *exchange) wait(now time.Time) time.Duration {
	if seconds, err := strconv.ParseInt(strings.TrimSpace(x.retryAfter), 10, 64); err == nil {
		if seconds > int64(maxWait/time.Second) {
			return maxWait
		}
		return max(0, time.Duration(seconds)*time.Second)
	}
	until, err := http.ParseTime(x.retryAfter)
	if err != nil {
		return 0
	}
	if date, err := http.ParseTime(x.date); err == nil {
		now = date
	}
	return min(max(0, until.Sub(now)), maxWait)
}

// jitter adds up to a twentieth, at most half a minute, so that what waited for
// the same moment does not come at once. It never takes away.
func jitter(d time.Duration) time.Duration {
	return d + rand.N(min(d/20, 30*time.Second)+1)
}

// clean makes text that came from outside fit to be shown: nothing that is not
// printable (control characters, changes of writing direction), at most n
// characters.
func clean(s string, n int) string {
	var b strings.Builder
	for _, r := range s {
		if n--; n < 0 {
			b.WriteString("…")
			break
		}
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case unicode.IsSpace(r):
			b.WriteByte(' ')
		}
	}
	return b.String()
}
