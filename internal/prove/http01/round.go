package http01

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/certfarm/certfarm/internal/lookup"
)

// A round is one preflight while it runs.
type round struct {
	Ask
	book   *book
	client *http.Client
	own    []netip.Addr // of this machine
	cells  []cell
}

func newRound(a Ask) *round {
	r := &round{
		Ask:  a.withDefaults(),
		book: &book{client: lookup.Client{Resolvers: a.Resolvers}, pages: map[string]*page{}},
		own:  own(),
	}
	r.client = &http.Client{
		CheckRedirect: r.redirect,
		Transport: &http.Transport{
			Proxy:             nil, // a CA uses none
			DisableKeepAlives: true,
			// A CA takes any certificate behind a redirect: the first one is being got
			// here. What counts is the answer, which nobody else can know.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
			DialContext:     r.dial,
		},
	}
	return r
}

// own are the addresses of this machine; none where they cannot be read.
func own() (all []netip.Addr) {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	for _, a := range found {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			all = append(all, p.Addr().Unmap())
		}
	}
	return all
}

// A seen is what came of one question.
type seen struct {
	address netip.Addr // that was connected to last, of the target
	hops    []hop      // redirects, in order
	status  int
	server  string // the Server header of the first answer: of the target
	body    string
	err     error // misled, or nothing was received
	cut     error // the answer broke off
}

// A hop is one redirect.
type hop struct{ scheme, host string }

// A question is one cell on its way through net/http, as a context value: the
// dialer and the check of redirects see no more than a request.
type question struct {
	name   string
	target *target
	mu     sync.Mutex // net/http dials in its own goroutine
	seen   seen
}

type questionKey struct{}

func asked(ctx context.Context) *question {
	q, _ := ctx.Value(questionKey{}).(*question)
	return q
}

// ask puts one question, unless its target is known not to answer.
func (r *round) ask(ctx context.Context, c cell) Finding {
	t := c.target
	after, err := t.state.known()
	s := seen{address: t.addresses[0], err: err}
	if err == nil {
		s = r.get(ctx, c)
		t.state.learn(c.name, s.err)
	}
	f := r.judge(c, s)
	if after != "" {
		f.Saw += ", when it was asked for " + after
	}
	return f
}

func (r *round) get(ctx context.Context, c cell) seen {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	q := &question{name: c.name, target: c.target, seen: seen{address: c.target.addresses[0]}}
	where := &url.URL{Scheme: "http", Host: hostPort(c.name, r.Port), Path: Path + r.Token}
	request, err := http.NewRequestWithContext(context.WithValue(ctx, questionKey{}, q), http.MethodGet, where.String(), nil)
	if err != nil {
		q.seen.err = err
		return q.seen
	}
	request.Header.Set("User-Agent", "Mozilla/5.0 (compatible; certfarm preflight)")
	request.Header.Set("Accept", "*/*")
	response, err := r.client.Do(request)
	q.mu.Lock()
	defer q.mu.Unlock()
	if err != nil {
		q.seen.err = err
		return q.seen
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	q.seen.status, q.seen.body, q.seen.cut = response.StatusCode, string(body), err
	if len(q.seen.hops) == 0 {
		q.seen.server = response.Header.Get("Server")
	}
	return q.seen
}

// An unreached error is a target that took no connection.
type unreached struct{ error }

// Unwrap gives the reason.
func (u unreached) Unwrap() error { return u.error }

// dial pins the name to the target that is being looked at: also where it
// redirects to itself. What another redirect leads to is looked up.
//
// It has a little less time than the question, so that a server which takes no
// connection is told from one that gives no answer.
func (r *round) dial(ctx context.Context, network, to string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout-r.Timeout/10)
	defer cancel()
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		return nil, err
	}
	q := asked(ctx)
	if !strings.EqualFold(host, q.name) {
		addresses, err := r.book.addresses(ctx, host)
		if len(addresses) == 0 {
			return nil, errors.Join(fmt.Errorf("redirected to %s, which has no address", show(host)), err)
		}
		conn, _, err := r.first(ctx, network, addresses, port)
		return conn, err
	}
	if port == strconv.Itoa(r.Port) {
		port = strconv.Itoa(q.target.port)
	}
	conn, address, err := r.first(ctx, network, q.target.addresses, port)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seen.address = address
	if err != nil && len(q.seen.hops) == 0 {
		return nil, unreached{err}
	}
	return conn, err
}

// first connects to the first address that takes it.
func (r *round) first(ctx context.Context, network string, addresses []netip.Addr, port string) (conn net.Conn, at netip.Addr, err error) {
	var errs []error
	for _, at = range addresses[:min(len(addresses), 4)] {
		conn, err := r.Dial(ctx, network, net.JoinHostPort(at.String(), port))
		if err == nil {
			return conn, at, nil
		}
		errs = append(errs, err)
	}
	return nil, addresses[0], errors.Join(errs...)
}

// A misled redirect is one that a CA would not follow: a wrong answer.
type misled struct{ why string }

// Error says why it is not followed.
func (m misled) Error() string { return m.why }

// redirect follows what Let's Encrypt follows, and notes it.
func (r *round) redirect(request *http.Request, via []*http.Request) error {
	to := request.URL
	q := asked(request.Context())
	if len(via) > redirects {
		return misled{fmt.Sprintf("more than %d redirects, the last to %s", redirects, show(to.Redacted()))}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.seen.hops) == 0 && request.Response != nil {
		q.seen.server = request.Response.Header.Get("Server")
	}
	if err := r.followed(to, q.name); err != nil {
		return err
	}
	q.seen.hops = append(q.seen.hops, hop{to.Scheme, to.Hostname()})
	return nil
}

// followed says whether a CA follows a redirect, of a question for the name.
func (r *round) followed(where *url.URL, name string) error {
	to, host := show(where.Redacted()), where.Hostname()
	port, known := map[string]string{"http": "80", "https": "443"}[where.Scheme]
	if !known {
		return misled{"a redirect to " + to + ", which is not HTTP"}
	}
	port = cmp.Or(where.Port(), port)
	if port != "80" && port != "443" && port != strconv.Itoa(r.Port) {
		return misled{"a redirect to " + to + ": CAs follow none to port " + show(port)}
	}
	if _, err := netip.ParseAddr(host); err == nil && r.Public && !strings.EqualFold(host, name) {
		return misled{"a redirect to " + to + ": public CAs follow none to an address"}
	}
	return nil
}

// reach is what is known of a target while it is asked for name after name: one
// that takes no connection is not asked for the next, or a dead rack would take
// minutes.
type reach struct {
	mu     sync.Mutex
	err    error
	after  string // the name that it was asked for
	silent int
}

func (s *reach) known() (after string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.after, s.err
}

func (s *reach) learn(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, dead := errors.AsType[unreached](err)
	switch e, ok := errors.AsType[net.Error](err); {
	case ok && e.Timeout():
		s.silent++
	case err == nil:
		s.silent = 0
	}
	if (dead || s.silent >= silences) && s.err == nil {
		s.err, s.after = err, name
	}
}

func hostPort(name string, port int) string {
	if port == 80 {
		if strings.Contains(name, ":") {
			return "[" + name + "]"
		}
		return name
	}
	return net.JoinHostPort(name, strconv.Itoa(port))
}
