package boulder

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// The methods of validation.
const (
	http01    = "http-01"
	dns01     = "dns-01"
	persist01 = "dns-persist-01"
)

// lookTime bounds one look from one perspective.
const lookTime = 10 * time.Second

// A look is what is to be seen at a name. It is a copy: it is used without the lock.
type look struct {
	o        Options
	name     identifier // without "*."
	wildcard bool
	method   string
	token    string
	auth     string // the key authorization (RFC 8555 §8.1)
	account  string // URL
	place    int    // which perspective this is; 0: the CA's own
}

func (c *CA) lookAt(z *authz) look {
	return look{
		o: c.o, name: identifier{z.name.Type, z.base()}, wildcard: z.wildcard(), method: z.method,
		token: z.token, auth: z.token + "." + z.by.print, account: z.by.url,
	}
}

// all looks from every perspective at once; nil: all agree, and CAA lets us.
func (l look) all(ctx context.Context) *problem {
	ctx, cancel := context.WithTimeout(ctx, 2*lookTime)
	defer cancel()
	seen := make([]*problem, l.o.Perspectives)
	var g sync.WaitGroup
	for i := range seen {
		at := l
		at.place = i
		g.Go(func() {
			if seen[i] = at.once(ctx); seen[i] == nil {
				seen[i] = at.caa(ctx)
			}
		})
	}
	g.Wait()
	for i, p := range seen {
		if p != nil && i > 0 {
			p.Detail = "During secondary validation: " + p.Detail
		}
		if p != nil {
			return p
		}
	}
	return nil
}

func (l look) once(ctx context.Context) *problem {
	switch l.method {
	case dns01:
		return l.dns01(ctx)
	case persist01:
		return l.persist01(ctx)
	}
	return l.http01(ctx)
}

// http01 fetches the token (RFC 8555 §8.3). Redirects may lead to ports 80 and
// 443 only; the certificate of an https one is not verified.
func (l look) http01(ctx context.Context) *problem {
	used := ""
	client := &http.Client{
		Timeout: lookTime,
		Transport: &http.Transport{
			DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
			DialContext: func(ctx context.Context, _, address string) (conn net.Conn, err error) {
				conn, used, err = l.dial(ctx, address)
				return conn, err
			},
		},
		CheckRedirect: func(r *http.Request, before []*http.Request) error {
			ports := []string{"", "80", "443", strconv.Itoa(l.o.HTTPPort), strconv.Itoa(l.o.HTTPSPort)}
			if len(before) > 10 || (r.URL.Scheme != "http" && r.URL.Scheme != "https") || !slices.Contains(ports, r.URL.Port()) {
				return refuse(http.StatusBadRequest, "connection", "Invalid redirect to %q: too many, or not to port 80 or 443", r.URL)
			}
			return nil
		},
	}
	host := l.name.Value
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	u := url.URL{Scheme: "http", Host: host, Path: "/.well-known/acme-challenge/" + l.token}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return refuse(http.StatusBadRequest, "malformed", "%s", err)
	}
	r.Header.Set("User-Agent", fmt.Sprintf("boulder-double; perspective %d", l.place))
	resp, err := client.Do(r)
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "connection", "%s: Fetching %s: %s", used, &u, err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return refuse(http.StatusForbidden, "unauthorized", "%s: Invalid response from %s: %d", used, resp.Request.URL, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 128))
	if err != nil {
		return refuse(http.StatusBadRequest, "connection", "%s: Fetching %s: %s", used, &u, err)
	}
	if strings.TrimRight(string(body), "\n\r\t ") != l.auth {
		return refuse(http.StatusForbidden, "unauthorized", "%s: The key authorization file from the server did not match this challenge. Expected %q (got %q)", used, l.auth, body)
	}
	return nil
}

// dial connects to a name that our name server knows: to one IPv6 address, and
// where that does not answer to one IPv4 address.
func (l look) dial(ctx context.Context, address string) (net.Conn, string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", err
	}
	switch port {
	case "80":
		port = strconv.Itoa(l.o.HTTPPort)
	case "443":
		port = strconv.Itoa(l.o.HTTPSPort)
	}
	addresses := []string{host}
	if net.ParseIP(host) == nil {
		var p *problem
		if addresses, p = l.addresses(ctx, host); p != nil {
			return nil, "", p
		}
	}
	var conn net.Conn
	used := ""
	for _, used = range addresses {
		if conn, err = (&net.Dialer{Timeout: lookTime / 3}).DialContext(ctx, "tcp", net.JoinHostPort(used, port)); err == nil {
			break
		}
	}
	return conn, used, err
}

func (l look) addresses(ctx context.Context, host string) ([]string, *problem) {
	var all []string
	for _, kind := range []uint16{dns.TypeAAAA, dns.TypeA} {
		found, p := l.records(ctx, host, kind)
		if p != nil {
			return nil, p
		}
		for _, r := range found {
			if a, ok := r.(*dns.AAAA); ok {
				all = append(all, a.AAAA.String())
				break
			}
			if a, ok := r.(*dns.A); ok {
				all = append(all, a.A.String())
				break
			}
		}
	}
	if len(all) == 0 {
		return nil, refuse(http.StatusBadRequest, "dns", "no valid A records found for %s; no valid AAAA records found for %s", host, host)
	}
	return all, nil
}

// dns01 looks for the digest (RFC 8555 §8.4).
func (l look) dns01(ctx context.Context) *problem {
	sum := sha256.Sum256([]byte(l.auth))
	at := "_acme-challenge." + l.name.Value
	texts, p := l.texts(ctx, at)
	switch {
	case p != nil:
		return p
	case len(texts) == 0:
		return refuse(http.StatusForbidden, "unauthorized", "No TXT record found at %s", at)
	case !slices.Contains(texts, base64.RawURLEncoding.EncodeToString(sum[:])):
		return refuse(http.StatusForbidden, "unauthorized", "Incorrect TXT record %q (and %d more) found at %s", texts[0], len(texts)-1, at)
	}
	return nil
}

// persist01 looks for the record that lasts (draft-ietf-acme-dns-persist).
func (l look) persist01(ctx context.Context) *problem {
	at := "_validation-persist." + l.name.Value
	texts, p := l.texts(ctx, at)
	if p != nil {
		return p
	}
	for _, t := range texts {
		issuer, said, ok := issueValue(t)
		until, err := strconv.ParseInt(said["persistuntil"], 10, 64)
		if said["persistuntil"] == "" {
			until, err = l.o.Now().Unix(), nil
		}
		if ok && err == nil && issuer == l.o.Identity && said["accounturi"] == l.account &&
			until >= l.o.Now().Unix() && (!l.wildcard || strings.EqualFold(said["policy"], "wildcard")) {
			return nil
		}
	}
	return refuse(http.StatusForbidden, "unauthorized", "No valid TXT record found at %s: there are %q", at, texts)
}

func (l look) texts(ctx context.Context, name string) ([]string, *problem) {
	found, p := l.records(ctx, name, dns.TypeTXT)
	var all []string
	for _, r := range found {
		if t, ok := r.(*dns.TXT); ok {
			all = append(all, strings.Join(t.Txt, ""))
		}
	}
	return all, p
}
