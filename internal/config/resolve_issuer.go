package config

import (
	"crypto/x509"
	"encoding/pem"
	"net/url"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// The directories of Let's Encrypt (https://letsencrypt.org/docs/staging-environment/).
const (
	letsEncrypt        = "https://acme-v02.api.letsencrypt.org/directory"
	letsEncryptStaging = "https://acme-staging-v02.api.letsencrypt.org/directory"
)

// issuer checks one CA.
func (c *resolver) issuer(name string, w issuer) farm.Issuer {
	c.checkName(key(w.at), name)
	got := farm.Issuer{
		Name: name, Directory: w.ACME, Contact: w.Contact,
		Profile: w.Profile, PreferredChain: w.PreferredChain,
	}
	if w.ACME != "" {
		c.directory(w.at.field("acme"), w.ACME)
	}
	if got.Staging = w.Staging; got.Staging != "" {
		c.directory(w.at.field("staging"), w.Staging)
	} else if w.ACME == letsEncrypt {
		got.Staging = letsEncryptStaging
	}
	for i, contact := range w.Contact {
		c.contact(w.at.field("contact").item(i), contact)
	}
	if w.Roots != "" {
		got.Roots = c.roots(w.at.field("roots"), w.Roots)
	}
	if w.EAB != nil {
		got.EAB = &farm.EAB{KeyID: w.EAB.KeyID, HMAC: farm.SecretRef(w.EAB.HMAC)}
	}
	if l := w.Limits; l != nil {
		got.Limits = &farm.Limits{
			Orders: farm.Rate(l.Orders), Domain: farm.Rate(l.Domain), Names: farm.Rate(l.Names),
			Accounts: farm.Rate(l.Accounts), Failures: farm.Rate(l.Failures), Exempt: l.Exempt,
		}
	}
	return got
}

// directory must be reached over TLS (RFC 8555 §6.1).
func (c *resolver) directory(p *place, text string) {
	u, err := url.Parse(text)
	switch {
	case err == nil && u.User != nil:
		c.src.hide(p.val)
		c.say(p, "a password must not stand in farm.yaml", "ACME needs none: it knows us by the account's key")
	case err == nil && u.Scheme == "http":
		c.say(p, "ACME is only spoken over https (RFC 8555 §6.1)", "write https://; for a private CA give its root in roots")
	case err != nil || u.Scheme != "https" || u.Host == "" || u.Fragment != "":
		c.say(p, "this is no URL of an ACME directory", "write for example https://acme-v02.api.letsencrypt.org/directory")
	}
}

func (c *resolver) contact(p *place, text string) {
	to, isMail := strings.CutPrefix(text, "mailto:")
	if text == "" || isMail && strings.Count(to, "@") == 1 && !strings.ContainsAny(to, "?, ") {
		return
	}
	hint := "write mailto:ops@example.com"
	if !isMail && strings.Contains(text, "@") {
		hint = "write mailto:" + text
	}
	c.say(p, "this is no mailto: URL (RFC 8555 §7.3)", hint)
}

// roots returns the certificates as encoding/pem writes them.
func (c *resolver) roots(p *place, text string) string {
	if strings.Contains(text, "PRIVATE KEY") {
		c.src.hide(p.val)
		c.say(p, "there is a private key here", "roots are certificates; change the key: it has been in a file")
		return ""
	}
	var b strings.Builder
	block, rest := pem.Decode([]byte(text))
	for ; block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			c.say(p, "roots are certificates; there is a "+strings.ToLower(block.Type)+" among them", "")
			return ""
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			c.say(p, "a root cannot be read: "+err.Error(), "")
			return ""
		}
		b.Write(pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
	}
	if b.Len() == 0 || strings.Contains(string(rest), "-----BEGIN") {
		c.say(p, "this is no certificate in PEM", "write `roots: |` and below it, indented, -----BEGIN CERTIFICATE----- …")
	}
	return b.String()
}
