package provider

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// An own is what we know of an API beside lego's client: to find and to remove by
// name and value, so that it may be done after a kill, twice, and beside values of
// others. A function that is not there is lego's part.
//
//	               lego v5.4.1                                        here
//	cloudflare     remembers ids; refuses a repeated put              finds and removes by value
//	digitalocean   remembers ids; a repeated put makes a second one   finds and removes by value
//	ovh            remembers ids                                      finds and removes by value
//	gandiv5        remembers names; removes all values of the name    removes one value
//	azuredns       removes all values of the name                     whole API, with If-Match
//	gcloud         removes all values; a put takes them down first    whole API, one atomic change
//	hetzner        removes by value; refuses what is not there        looks first
//	pdns           removes by value; refuses what is there, or not    looks first
//	route53        puts and removes by value, keeps the others        nothing
type own struct {
	has    func(context.Context, dns01.Record) (bool, error)
	put    func(context.Context, dns01.Record) error
	remove func(context.Context, dns01.Record) error
}

// owns are the APIs that we know, by the provider's name.
var owns = map[string]func(context.Context, settings) (own, error){
	"azuredns":     azure,
	"cloudflare":   cloudflareOwn,
	"digitalocean": digitalOcean,
	"gandiv5":      gandi,
	"gcloud":       google,
	"hetzner":      hetznerOwn,
	"ovh":          ovhOwn,
	"pdns":         powerDNS,
}

// settings are a provider's, by lego's names.
type settings map[string]string

// first is the first that is set.
func (s settings) first(names ...string) string {
	for _, n := range names {
		if s[n] != "" {
			return s[n]
		}
	}
	return ""
}

// A byID is an API of single records, each with an id.
type byID struct {
	find func(context.Context, dns01.Record) ([]string, error) // those of the name and value
	drop func(ctx context.Context, r dns01.Record, id string) error
}

func (a byID) own() own {
	return own{
		has: func(ctx context.Context, r dns01.Record) (bool, error) {
			ids, err := a.find(ctx, r)
			return len(ids) > 0, err
		},
		remove: func(ctx context.Context, r dns01.Record) error {
			ids, err := a.find(ctx, r)
			for _, id := range ids {
				if err == nil {
					err = a.drop(ctx, r, id)
				}
			}
			return err
		},
	}
}

// label is the name of a record in its zone.
func label(r dns01.Record) string {
	if r.Name == r.Zone {
		return "@"
	}
	return strings.TrimSuffix(r.Name, "."+r.Zone)
}

// plain is a TXT value without the quotes that many APIs put around.
func plain(value string) string {
	if len(value) > 1 && strings.HasPrefix(value, `"`) && strings.HasSuffix(value, `"`) {
		return value[1 : len(value)-1]
	}
	return value
}

// holds reports whether a value is among those of an API, quoted or not.
func holds(values []string, value string) bool {
	return slices.ContainsFunc(values, func(v string) bool { return plain(v) == value })
}

// others are the values of an API without ours.
func others(values []string, value string) []string {
	return slices.DeleteFunc(slices.Clone(values), func(v string) bool { return plain(v) == value })
}

// A rest is an HTTP API that speaks JSON.
type rest struct {
	base   string
	header map[string]string
	client *http.Client // nil: one without credentials of its own
}

// do asks, and reads the answer into out unless that is nil. An answer other than
// 2xx is a *refusal.
func (c rest) do(ctx context.Context, method, path string, in, out any) error {
	return c.ask(ctx, method, path, nil, in, out)
}

// ask is do with more headers.
func (c rest) ask(ctx context.Context, method, path string, more map[string]string, in, out any) error {
	req, err := c.request(ctx, method, path, in)
	if err != nil {
		return err
	}
	for k, v := range more {
		req.Header.Set(k, v)
	}
	resp, err := cmp.Or(c.client, &http.Client{Timeout: time.Minute}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 8 << 20 // a zone of many thousand records
	text, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return &refusal{method + " " + path, resp.StatusCode, string(text[:min(len(text), shown)])}
	}
	if out == nil || len(text) == 0 {
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}

func (c rest) request(ctx context.Context, method, path string, in any) (*http.Request, error) {
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.base, "/")+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range c.header {
		req.Header.Set(k, v)
	}
	return req, nil
}

// A refusal is an API's answer other than yes.
type refusal struct {
	what   string
	status int
	body   string
}

// Error says what was refused, and how.
func (r *refusal) Error() string {
	return fmt.Sprintf("%s: %d %s: %s", r.what, r.status, http.StatusText(r.status), r.body)
}

// forbidden reports that the credential is good, but not for this.
func (r *refusal) forbidden() bool { return r.status == http.StatusForbidden }

// missing reports that an API says that there is no such thing.
func missing(err error) bool {
	r, ok := errors.AsType[*refusal](err)
	return ok && r.status == http.StatusNotFound
}

func query(pairs ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		q.Set(pairs[i], pairs[i+1])
	}
	return "?" + q.Encode()
}
