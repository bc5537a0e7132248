package http01

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// An Ask is one question for every name at each of its addresses.
type Ask struct {
	Names       []string
	Token, Want string              // from Question, on the board already
	Resolvers   map[string][]string // zone ("." for the rest) to DNS servers, host:port; none: the system's
	Port        int                 // where the CA asks; 0: 80, as every public CA does
	Timeout     time.Duration       // for one name at one address; 0: 10 s
	// Dial opens the connections; nil: directly from this machine.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// A Finding is what came of asking one name at one address: a cell of the
// matrix that people are shown.
type Finding struct {
	Name    string
	Address string // IP; empty: none was found
	Verdict Sort
	Saw     string // what was seen, fit to be shown
	Remedy  string // what to do, in words; empty where it is right
}

// Sort says how an answer was.
type Sort string

// The sorts of answers.
const (
	Right   Sort = "right"
	Wrong   Sort = "wrong"       // another answer than ours was received
	Unclear Sort = "cannot tell" // none was received: the CA may see more than we do
)

// Limits of asking.
const (
	cells     = 16       // at a time
	redirects = 10       // as Let's Encrypt
	maxAnswer = 16 << 10 // bytes read of an answer
	shown     = 100      // bytes shown of one
	patience  = 10 * time.Second
)

// Preflight asks each name at each of its A and AAAA addresses for the token,
// as a CA does: on port 80, without a proxy, following at most 10 redirects to
// ports 80 and 443, taking any certificate there. It finds only what can be
// seen from here: a CA asks from several places. The findings come in the order
// of the names, then of the addresses.
func Preflight(ctx context.Context, a Ask) []Finding {
	a = a.withDefaults()
	rows := make([][]Finding, len(a.Names))
	var g errgroup.Group
	g.SetLimit(cells)
	for i, name := range a.Names {
		g.Go(func() error {
			rows[i] = a.row(ctx, name)
			return nil
		})
	}
	_ = g.Wait() // what goes wrong is a finding
	return slices.Concat(rows...)
}

func (a Ask) withDefaults() Ask {
	if a.Port == 0 {
		a.Port = 80
	}
	if a.Timeout == 0 {
		a.Timeout = patience
	}
	if a.Dial == nil {
		a.Dial = (&net.Dialer{}).DialContext
	}
	return a
}

func (a Ask) row(ctx context.Context, name string) []Finding {
	if strings.HasPrefix(name, "*.") {
		return []Finding{{Name: name, Verdict: Unclear, Saw: "a wildcard", Remedy: "wildcards are proven by DNS, not over HTTP"}}
	}
	lookup, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	addresses, err := a.resolve(lookup, name)
	if len(addresses) == 0 {
		saw := "no address"
		if err != nil {
			saw = show(err.Error())
		}
		return []Finding{{Name: name, Verdict: Unclear, Saw: saw, Remedy: "give " + name + " an A or AAAA record that leads to the farm, and look at it from outside"}}
	}
	row := make([]Finding, len(addresses))
	for i, address := range addresses {
		row[i] = a.cell(ctx, name, address)
	}
	return row
}

// A misled redirect is one that a CA would not follow: a wrong answer.
type misled struct{ why string }

// Error says why it is not followed.
func (m misled) Error() string { return m.why }

func (a Ask) cell(ctx context.Context, name string, address netip.Addr) Finding {
	ctx, cancel := context.WithTimeout(ctx, a.Timeout)
	defer cancel()
	f := Finding{Name: name, Address: address.String()}
	resp, err := a.get(ctx, name, address)
	if err != nil {
		if m, ok := errors.AsType[misled](err); ok {
			f.Verdict, f.Saw = Wrong, m.why
			f.Remedy = "answer the challenge path itself on port 80, or redirect it to a URL on port 80 or 443"
			return f
		}
		f.Verdict, f.Saw = Unclear, show(reason(err))
		f.Remedy = fmt.Sprintf("if the internet cannot reach %s at port %d either, open it there or take the address out of the DNS of %s", address, a.Port, name)
		return f
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch got := strings.TrimRight(string(body), " \t\r\n"); {
	case err != nil && resp.StatusCode == http.StatusOK:
		f.Verdict, f.Saw = Unclear, "the answer broke off: "+show(reason(err))
		f.Remedy = "ask again"
	case resp.StatusCode == http.StatusOK && got == a.Want:
		f.Verdict, f.Saw = Right, "our answer"
	default:
		f.Verdict = Wrong
		f.Saw = fmt.Sprintf("HTTP status %d: %s", resp.StatusCode, show(got))
		if resp.Request != nil && resp.Request.URL.Hostname() != name {
			f.Saw += ", after a redirect to " + show(resp.Request.URL.Redacted())
		}
		f.Remedy = fmt.Sprintf("another server answers for %s at %s: route %s there to certfarm, before any redirect, login or filter", name, address, Path)
	}
	return f
}

// get asks one name at one address.
func (a Ask) get(ctx context.Context, name string, address netip.Addr) (*http.Response, error) {
	question := &url.URL{Scheme: "http", Host: hostPort(name, a.Port), Path: Path + a.Token}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, question.String(), nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", "Mozilla/5.0 (compatible; certfarm preflight)")
	transport := &http.Transport{
		Proxy:             nil, // a CA uses none
		DisableKeepAlives: true,
		// A CA takes any certificate behind a redirect: the first one is being got
		// here. What counts is the answer, which nobody else can know.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			return a.dial(ctx, network, host, port, name, address)
		},
	}
	client := &http.Client{Transport: transport, CheckRedirect: a.redirect}
	return client.Do(r)
}

// dial pins the name to the address that is being looked at. What a redirect
// leads to is looked up.
func (a Ask) dial(ctx context.Context, network, host, port, name string, address netip.Addr) (net.Conn, error) {
	if strings.EqualFold(host, name) {
		return a.Dial(ctx, network, net.JoinHostPort(address.String(), port))
	}
	addresses, err := a.resolve(ctx, host)
	if len(addresses) == 0 {
		return nil, errors.Join(fmt.Errorf("redirected to %s, which has no address", host), err)
	}
	var errs []error
	for _, to := range addresses[:min(len(addresses), 4)] {
		conn, err := a.Dial(ctx, network, net.JoinHostPort(to.String(), port))
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

// redirect follows what Let's Encrypt follows.
func (a Ask) redirect(r *http.Request, via []*http.Request) error {
	to := show(r.URL.Redacted())
	if len(via) > redirects {
		return misled{fmt.Sprintf("more than %d redirects, the last to %s", redirects, to)}
	}
	port := r.URL.Port()
	switch {
	case r.URL.Scheme == "http" && port == "":
		port = "80"
	case r.URL.Scheme == "https" && port == "":
		port = "443"
	case r.URL.Scheme != "http" && r.URL.Scheme != "https":
		return misled{"a redirect to " + to + ", which is not HTTP"}
	}
	if port != "80" && port != "443" && port != strconv.Itoa(a.Port) {
		return misled{"a redirect to " + to + ": CAs follow none to port " + show(port)}
	}
	return nil
}

// reason is an error without the URL that net/http puts before it.
func reason(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			return "no answer in time"
		}
		return e.Err.Error()
	}
	return err.Error()
}

// show makes foreign text fit to be shown: its first bytes, with everything
// that is not printable escaped.
func show(s string) string {
	if len(s) > shown {
		s = s[:shown] + "…"
	}
	quoted := strconv.QuoteToGraphic(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
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

// Verdict says whether findings hold an order back, and why. Only a wrong answer
// that was received does: what cannot be reached from here the CA may reach. And
// nothing does past the last safe moment, when a refused order costs less than
// none.
func Verdict(findings []Finding, pastLastSafe bool) (hold bool, why string) {
	var wrong []string
	for _, f := range findings {
		if f.Verdict == Wrong {
			wrong = append(wrong, fmt.Sprintf("%s at %s gave a wrong answer (%s); %s", f.Name, f.Address, f.Saw, f.Remedy))
		}
	}
	switch {
	case len(wrong) == 0:
		return false, ""
	case pastLastSafe:
		return false, "going on all the same, since the certificate expires soon: " + strings.Join(wrong, "; ")
	}
	return true, strings.Join(wrong, "; ")
}
