package lab

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A shelf is what a server has read: certificates, and where it reads a store of
// files by name, the name that each is for.
type shelf struct {
	certs []tls.Certificate
	names []string // one for each, "shop.test" or "*.shop.test"; nil: what the certificates say
}

// A content is what a worker serves.
type content struct {
	config *tls.Config
	leaves []string // fingerprints
}

// content makes a shelf what a worker serves.
func (s shelf) content() *content {
	c := &content{config: &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"}}}
	for _, cert := range s.certs {
		c.leaves = append(c.leaves, farm.Fingerprint(cert.Certificate[0]))
	}
	if s.names == nil {
		c.config.Certificates = s.certs
		return c
	}
	c.config.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return s.find(h.ServerName) }
	return c
}

// find is how IIS looks into its store: by the exact name, and only where there is
// no such file by the wildcard's. What the certificate says does not matter, nor
// does it serve anything to who names nobody.
func (s shelf) find(name string) (*tls.Certificate, error) {
	name = strings.ToLower(name)
	_, rest, _ := strings.Cut(name, ".")
	for _, file := range []string{name, "*." + rest} {
		if i := slices.Index(s.names, file); i >= 0 {
			return &s.certs[i], nil
		}
	}
	return nil, fmt.Errorf("there is no certificate for %q", name)
}

// String names the leaves, for the log.
func (c *content) String() string {
	var leaves []string
	for _, l := range c.leaves {
		leaves = append(leaves, farm.Short(l))
	}
	return strings.Join(leaves, " and ")
}
