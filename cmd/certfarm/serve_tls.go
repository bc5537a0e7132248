package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/encode"
)

// An ownPair is the certificate that the controller itself serves: files that a target
// of one of its own sites may be, so that it is renewed, rolled out and proven by
// handshakes as any other. What is new in the files is served from the next handshake
// on. Before they are there a placeholder is served: the first certificate needs a
// controller that runs.
type ownPair struct {
	cert, key string // may be one file
	log       *slog.Logger

	mu    sync.Mutex
	stamp string // of the files that last is from
	last  *tls.Certificate
}

// newOwnPair reads the files. It fails where they are there and no pair.
func newOwnPair(cert, key, listen string, log *slog.Logger) (*ownPair, error) {
	p := &ownPair{cert: cert, key: key, log: log}
	if p.key == "" {
		p.key = cert
	}
	err := p.read()
	if !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	host, _, _ := net.SplitHostPort(listen) // it was looked at before
	names := []string{"localhost"}
	if host != "" && net.ParseIP(host) == nil {
		names = append(names, host)
	}
	b, err := encode.Placeholder(names, time.Now())
	if err != nil {
		return nil, err
	}
	stand, err := tls.X509KeyPair(b.Chain, b.Key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("placeholder for the API: %w", err)
	}
	p.last = &stand
	log.Warn("a placeholder is served until the certificate is there: browsers and commands do not trust it", "file", p.cert, "sha256", b.Leaf)
	return p, nil
}

// read takes the files, if they are others than those that it has.
func (p *ownPair) read() error {
	stamp := ""
	for _, file := range []string{p.cert, p.key} {
		info, err := os.Stat(file)
		if err != nil {
			return fmt.Errorf("certificate of the API: %w", err)
		}
		stamp += fmt.Sprint(info.ModTime().UnixNano(), " ", info.Size(), " ")
	}
	if stamp == p.stamp {
		return nil
	}
	pair, err := tls.LoadX509KeyPair(p.cert, p.key)
	if err != nil {
		return fmt.Errorf("certificate of the API: %w", err)
	}
	p.stamp, p.last = stamp, &pair
	return nil
}

// get is asked at each handshake. While the files are no pair, as between the renames
// of two, what was served before is served on.
func (p *ownPair) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.read(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Warn("the old certificate is served on", "error", err)
	}
	return p.last, nil
}
