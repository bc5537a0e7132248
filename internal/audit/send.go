package audit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// A Sender carries the lines away, each as JSON with its hash, in their order and at
// least once. Where it had come to is in the store, for each place that is sent to.
type Sender struct {
	Book Book
	To   *url.URL    // syslog+udp://, syslog+tcp://, syslog+tls:// (RFC 5424), otlp+https://, otlp+http:// (a collector), https:// or, on loopback, http://
	Key  farm.Secret // signs what goes over HTTP; may be empty
	HTTP *http.Client
	Log  *slog.Logger
}

// sendEvery is how often a sender looks again when nothing is told to it, and how long
// it waits after a failure.
const sendEvery = 10 * time.Second

// sendAtOnce is how many lines go together.
const sendAtOnce = 100

// Run sends until the context ends. What cannot be sent is tried again.
func (s Sender) Run(ctx context.Context) error {
	for {
		written := s.Book.Store.Written()
		n, err := s.Send(ctx)
		switch {
		case err != nil:
			s.complain(ctx, err)
			written = nil
		case n == sendAtOnce:
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-written:
		case <-time.After(sendEvery):
		}
	}
}

// complain tells that it cannot be sent, unless that is since the end has come.
func (s Sender) complain(ctx context.Context, err error) {
	if ctx.Err() == nil {
		s.Log.Error("the audit cannot be sent away", "to", s.To.Redacted(), "error", err)
	}
}

// word is where the store keeps how far this sender has come.
func (s Sender) word() string { return "audit sent " + s.To.Redacted() }

// Send sends the next lines, and says how many.
func (s Sender) Send(ctx context.Context) (n int, err error) {
	var sent int64
	err = s.Book.Store.View(ctx, func(tx *store.Tx) error {
		text, err := tx.Word(ctx, "", s.word())
		sent, _ = strconv.ParseInt(text, 10, 64) // nothing: from the first
		return err
	})
	if err != nil {
		return 0, err
	}
	lines, err := s.Book.Lines(ctx, sent, sendAtOnce)
	if err != nil || len(lines) == 0 {
		return 0, err
	}
	if err := s.carry(ctx, lines); err != nil {
		return 0, err
	}
	return len(lines), s.Book.Store.Update(ctx, func(tx *store.Tx) error {
		return tx.SetWord(ctx, "", s.word(), strconv.FormatInt(sent+int64(len(lines)), 10))
	})
}

func (s Sender) carry(ctx context.Context, lines []Line) error {
	switch s.To.Scheme {
	case "https", "http":
		var body bytes.Buffer
		for _, l := range lines {
			if err := json.NewEncoder(&body).Encode(l); err != nil {
				return err
			}
		}
		return s.post(ctx, s.To.String(), "application/jsonl", body.Bytes())
	case "otlp+https", "otlp+http":
		return s.otlp(ctx, lines)
	}
	return s.syslog(ctx, lines)
}

// post sends a body, signed as webhooks are.
func (s Sender) post(ctx context.Context, to, kind string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", kind)
	if key := s.Key.Reveal(); len(key) > 0 {
		at := strconv.FormatInt(time.Now().Unix(), 10)
		m := hmac.New(sha256.New, key)
		fmt.Fprintf(m, "%s.%s", at, body)
		r.Header.Set("Certfarm-Signature", "t="+at+",v1="+hex.EncodeToString(m.Sum(nil)))
	}
	res, err := s.HTTP.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<10)) // the line is used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("it was answered with %d", res.StatusCode)
	}
	return nil
}

// facility and severity of a line: security (13, log audit), notice.
const priority = 13*8 + 5

// syslog sends lines by RFC 5424, on TCP and TLS each behind its length (RFC 6587 §3.4.1,
// RFC 5425 §4.3). What TCP took and nobody read is lost, as always with syslog: the next
// hash still tells.
func (s Sender) syslog(ctx context.Context, lines []Line) error {
	line, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer line.Close()
	if err := line.SetDeadline(time.Now().Add(sendEvery)); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil {
		host = "-"
	}
	for _, l := range lines {
		text, err := json.Marshal(l)
		if err != nil {
			return err
		}
		message := fmt.Sprintf("<%d>1 %s %s certfarm - audit - %s", priority, time.Now().UTC().Format(time.RFC3339), host, text)
		if s.To.Scheme != "syslog+udp" {
			message = strconv.Itoa(len(message)) + " " + message
		}
		if _, err := io.WriteString(line, message); err != nil {
			return err
		}
	}
	return nil
}

func (s Sender) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Timeout: sendEvery}
	switch s.To.Scheme {
	case "syslog+udp":
		return d.DialContext(ctx, "udp", s.To.Host)
	case "syslog+tcp":
		return d.DialContext(ctx, "tcp", s.To.Host)
	case "syslog+tls":
		t := tls.Dialer{NetDialer: &d, Config: &tls.Config{MinVersion: tls.VersionTLS12}}
		return t.DialContext(ctx, "tcp", s.To.Host)
	}
	return nil, fmt.Errorf("%s is no way to send the audit: use syslog+udp, syslog+tcp, syslog+tls, otlp+https or https", s.To.Scheme)
}
