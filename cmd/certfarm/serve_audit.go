package main

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// auditWays are how the audit may be sent away.
var auditWays = []string{"https", "http", "syslog+tls", "syslog+tcp", "syslog+udp", "otlp+https", "otlp+http"}

// senders carry the audit to where it is to go, each by itself.
func (s serving) senders(st *store.Store, log *slog.Logger) (all []func(context.Context) error, err error) {
	var key farm.Secret
	if s.auditKey != "" {
		if key, err = (kept{File: s.auditKey}).read("."); err != nil {
			return nil, err
		}
	}
	for _, text := range s.auditTo {
		to, err := url.Parse(text)
		if err != nil || to.Host == "" || !slices.Contains(auditWays, to.Scheme) {
			return nil, usage("for example syslog+tls://log.example.com:6514 or https://siem.example.com/certfarm", "--audit-to %s: it is no place to send to", text)
		}
		one := audit.Sender{Book: audit.Book{Store: st}, To: to, Key: key, HTTP: &http.Client{
			Timeout:       30 * time.Second,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}, Log: log}
		all = append(all, one.Run)
	}
	return all, nil
}
