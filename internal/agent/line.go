package agent

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/farm"
)

// A line is the way to one controller's door. What is at its other end is known by its
// pin, not by its name: a controller may be reached by any address.
type line struct {
	server string
	client *http.Client
}

// The bounds of a request.
const (
	dialWithin  = 10 * time.Second
	headWithin  = 60 * time.Second // a poll is answered after 25 s
	pollWithin  = 75 * time.Second
	askWithin   = 30 * time.Second
	mostRefusal = 64 << 10
	mostCalls   = 64*remote.MaxCall/8 + 1<<20
)

// newLine makes a line; own is shown as the agent's certificate, if there is one.
func newLine(server string, pins []string, own *tls.Certificate, now func() time.Time) (*line, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "https" || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.User != nil {
		return nil, fmt.Errorf("server %q is not written https://host:port", server)
	}
	c := &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // the name says nothing: VerifyConnection holds it to the pins
		VerifyConnection:   func(s tls.ConnectionState) error { return pinned(s.PeerCertificates, pins, now()) },
	}
	if own != nil {
		c.Certificates = []tls.Certificate{*own}
	}
	t := &http.Transport{
		DialContext:     (&net.Dialer{Timeout: dialWithin, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig: c, TLSHandshakeTimeout: dialWithin, ResponseHeaderTimeout: headWithin,
		MaxResponseHeaderBytes: 64 << 10, IdleConnTimeout: 2 * time.Minute, ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second},
	}
	return &line{server: "https://" + u.Host, client: &http.Client{
		Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// pinned holds what was shown to the pins: a server's certificate, signed by the CA
// whose public key one of them is of.
func pinned(shown []*x509.Certificate, pins []string, now time.Time) error {
	if len(shown) < 2 {
		return errors.New("what answers there is not a controller's door for agents")
	}
	roots := x509.NewCertPool()
	found := false
	for _, c := range shown[1:] {
		if slices.Contains(pins, farm.Fingerprint(c.RawSubjectPublicKeyInfo)) {
			roots.AddCert(c)
			found = true
		}
	}
	if !found {
		return errors.New("what answers there is not the controller that made the token: its CA is another")
	}
	_, err := shown[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return fmt.Errorf("the controller's certificate: %w (this machine's clock says %s)", err, now.UTC().Format(time.RFC3339))
	}
	return nil
}

// close lets go of the connection.
func (l *line) close() { l.client.CloseIdleConnections() }

// ask sends one request and decodes what comes back into into, if that is not nil. A
// refusal is a *Refused.
func (l *line) ask(ctx context.Context, within time.Duration, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	text, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return fmt.Errorf("ask %s: %w", path, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, l.server+path, bytes.NewReader(text))
	if err != nil {
		return fmt.Errorf("ask %s: %w", l.server, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := l.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask %s: %w", l.server, inner(err))
	}
	defer res.Body.Close()
	if res.StatusCode >= http.StatusMultipleChoices {
		return refusal(res)
	}
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, mostCalls)).Decode(into); err != nil {
		return fmt.Errorf("read what %s answered: %w", l.server, err)
	}
	return nil
}

// inner is an error without the URL around it.
func inner(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func refusal(res *http.Response) error {
	r := &Refused{}
	text, err := io.ReadAll(io.LimitReader(res.Body, mostRefusal))
	if err == nil {
		err = json.Unmarshal(text, r)
	}
	if err != nil || r.Kind == "" {
		return fmt.Errorf("%s answered %s, which is not what a controller's door for agents answers", res.Request.URL.Host, res.Status)
	}
	return r
}
