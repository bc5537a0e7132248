// Package client asks a controller through its API, over a unix socket or over
// https with a token. Its methods are the controller's questions, and errors
// come back as the same Go types: *store.Conflict, config.Mistakes,
// *controller.Refusal, store.ErrNotFound.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/api"
	"github.com/certfarm/certfarm/internal/farm"
)

// Config says where the controller is.
type Config struct {
	Socket string      // path of its unix socket; used where URL is empty
	URL    string      // https://host:port, or http:// on loopback
	Token  farm.Secret // for URL
	Roots  []byte      // PEM of the CA of URL's certificate; nil: the system's
	Actor  string      // who sits at the terminal, for the journal; believed on the socket only
}

// A Client asks one controller. It is safe for use by many goroutines at once.
type Client struct {
	config Config
	base   string
	http   *http.Client
	routes map[string]api.Route
}

// ErrNotRunning says that no controller answers.
var ErrNotRunning = errors.New("no controller answers")

// New makes a client. It connects when it is first asked.
func New(c Config) (*Client, error) {
	cl := &Client{config: c, base: "http://certfarm", routes: map[string]api.Route{}}
	for _, r := range api.Routes() {
		cl.routes[r.ID] = r
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 10 * time.Second}
	cl.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.URL == "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", c.Socket)
		}
		return cl, nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("server %q is no URL: https://host:port", c.URL)
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("server %s: a token is sent over https only, or over http to this machine", c.URL)
	}
	cl.base = strings.TrimSuffix(c.URL, "/")
	if c.Roots != nil {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(c.Roots) {
			return nil, errors.New("the CA file holds no certificate in PEM")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	}
	return cl, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ask is one request: the route, the words of its path, and what goes with it.
type ask struct {
	route string
	words []string
	query url.Values
	head  map[string]string // headers; those that are empty are not sent
	body  any
}

func (c *Client) request(ctx context.Context, a ask) (*http.Response, error) {
	r, ok := c.routes[a.route]
	if !ok {
		return nil, fmt.Errorf("there is no route %s", a.route)
	}
	var in io.Reader
	if a.body != nil {
		b, err := json.Marshal(a.body)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", a.route, err)
		}
		in = bytes.NewReader(b)
	}
	to := c.base + r.URL(a.words...)
	if len(a.query) > 0 {
		to += "?" + a.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, to, in)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", a.route, err)
	}
	c.head(req, a)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(ctx, err)
	}
	if res.StatusCode < http.StatusBadRequest {
		return res, nil
	}
	defer res.Body.Close()
	return nil, problem(res)
}

// head sets the headers of a request.
func (c *Client) head(req *http.Request, a ask) {
	if a.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if req.Method == http.MethodPost { // net/http sends it again then, where an idle line was closed under it
		req.Header.Set(api.KeyHeader, rand.Text())
	}
	for name, value := range a.head {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if c.config.URL != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.config.Token.Reveal()))
	} else {
		req.Header.Set(api.ActorHeader, c.config.Actor)
	}
}

// unanswered says why nothing came back.
func (c *Client) unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if inner, ok := errors.AsType[*url.Error](err); ok {
		err = inner.Err // the URL of a socket means nothing to people
	}
	at := cmp.Or(c.config.URL, c.config.Socket)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s: %w", at, err)
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return fmt.Errorf("%w at %s: %w", ErrNotRunning, at, dial.Err)
	}
	return fmt.Errorf("%s broke off: %w", at, err)
}

// maxProblem bounds what is read of an error: a farm.yaml may have a thousand
// mistakes.
const maxProblem = 4 << 20

func problem(res *http.Response) error {
	text, err := io.ReadAll(io.LimitReader(res.Body, maxProblem))
	p := &api.Problem{}
	if err == nil {
		err = json.Unmarshal(text, p)
	}
	if err != nil || p.Type == "" {
		return fmt.Errorf("the server answered %s, which is not what certfarm answers: is it another program?", res.Status)
	}
	return p.Err()
}

// answered decodes what came back.
func answered[T any](ctx context.Context, c *Client, a ask) (out T, err error) {
	res, err := c.request(ctx, a)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return out, fmt.Errorf("read the answer to %s: %w", a.route, err)
	}
	return out, nil
}

// pageSize is how many items of a list are asked for at once.
const pageSize = 1000

// walked reads a list page by page, to its end or until limit of its items are there (0:
// all). Of tells what is on a page, and how to go on.
func walked[P, T any](ctx context.Context, c *Client, a ask, limit int, of func(P) ([]T, string)) (all []T, err error) {
	if a.query == nil {
		a.query = url.Values{}
	}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(all))
		}
		a.query.Set("limit", strconv.Itoa(size))
		page, err := answered[P](ctx, c, a)
		if err != nil {
			return nil, err
		}
		some, next := of(page)
		if all = append(all, some...); next == "" || limit > 0 && len(all) >= limit {
			return all, nil
		}
		a.query.Set("after", next)
	}
}

// told is for orders, which are answered without words.
func told(ctx context.Context, c *Client, a ask) error {
	res, err := c.request(ctx, a)
	if err != nil {
		return err
	}
	return res.Body.Close()
}
