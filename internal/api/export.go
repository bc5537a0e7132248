package api

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/certfarm/certfarm/internal/access"
	"github.com/certfarm/certfarm/internal/audit"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// The headers of a hand-over: the password that the file is to open with, or that was
// made for it, and the certificate's fingerprint.
const (
	PasswordHeader = "Certfarm-Password"
	LeafHeader     = "Certfarm-Leaf"
)

// The formats of a certificate with its key.
const (
	FormatPEM = "pem" // chain, leaf first, then the key in PKCS#8
	FormatPFX = "pfx"
	FormatJKS = "jks"
)

func exportRoutes() []Route {
	return []Route{
		{ID: "export", Method: "GET", Path: inFarm + "/certificates/{site}/bundle", Needs: KeyExport, Object: Site, Tag: "certificates", Summary: "Take a certificate away with its key", bind: hand((*server).export)},
		{ID: "pull", Method: "GET", Path: inFarm + "/certificates", Needs: KeyExport, Object: OfSites, Tag: "certificates", Summary: "Take away the certificate for a name, as Caddy's get_certificate asks; 204 if there is none", bind: hand((*server).pull)},
	}
}

// Handed is a certificate with its key on its way out, or word that who asks has it.
type Handed struct {
	Status      int
	ContentType string `header:"Content-Type"`
	ETag        string `header:"ETag" doc:"of the certificate and the format; send it as If-None-Match"`
	Leaf        string `header:"Certfarm-Leaf" doc:"the certificate's fingerprint, SHA-256 of its DER"`
	Password    string `header:"Certfarm-Password" doc:"what the file opens with, where none was sent"`
	Body        []byte
}

// hand binds a hand-over to its route.
func hand[I any](f func(*server, context.Context, *I) (*Handed, error)) func(*server, huma.API, huma.Operation) {
	return func(s *server, a huma.API, op huma.Operation) {
		op.Responses["200"] = &huma.Response{Description: "The certificate with its key", Content: map[string]*huma.MediaType{}}
		for _, format := range []string{FormatPEM, FormatPFX, FormatJKS} {
			op.Responses["200"].Content[mediaType(format)] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Format: "binary"}}
		}
		op.Responses["304"] = &huma.Response{Description: "Who asks has it already: If-None-Match"}
		huma.Register(a, op, func(ctx context.Context, in *I) (*Handed, error) {
			out, err := f(s, ctx, in)
			if err != nil {
				return nil, s.problemOf(ctx, op.OperationID, err)
			}
			return out, nil
		})
	}
}

func mediaType(format string) string {
	switch format {
	case FormatPFX:
		return "application/x-pkcs12"
	case FormatJKS:
		return "application/x-java-keystore"
	}
	return "application/x-pem-file"
}

type exportAsk struct {
	InSite
	Format   string `query:"format" enum:"pem,pfx,jks" default:"pem"`
	KeyType  string `query:"key_type" enum:"ec256,ec384,rsa2048,rsa3072,rsa4096" doc:"of the leaf; not set: the first of the site's"`
	Cipher   string `query:"cipher" enum:"aes256-sha256,3des-sha1" default:"aes256-sha256" doc:"of a PFX; the second for Windows Server 2016 and older"`
	Alias    string `query:"alias" maxLength:"100" doc:"of the entry in a JKS; not set: the site's name"`
	Password string `header:"Certfarm-Password" minLength:"6" maxLength:"200" pattern:"^[\\x21-\\x7e]+$" doc:"what a PFX or JKS is to open with: ASCII without spaces; not sent: one is made, and answered in the same header"`
	Has      string `header:"If-None-Match" doc:"the ETag of what who asks has: nothing is handed out while it is still that"`
}

func (s *server) export(ctx context.Context, in *exportAsk) (*Handed, error) {
	o, err := s.Offer(ctx, in.Farm, in.Site, farm.KeyType(in.KeyType))
	if err != nil {
		return nil, err
	}
	out := &Handed{Status: http.StatusNotModified, ETag: etag(o.Leaf.Fingerprint, in.Format), Leaf: o.Leaf.Fingerprint}
	if has(in.Has, out.ETag) {
		return out, nil
	}
	w := wrapping{format: in.Format, cipher: encode.PFXCipher(in.Cipher), alias: cmp.Or(in.Alias, in.Site), password: farm.NewSecret([]byte(in.Password))}
	if in.Format != FormatPEM && in.Password == "" {
		w.password = encode.NewPFXPassword()
		out.Password = string(w.password.Reveal())
	}
	return out, s.handOver(ctx, in.Farm, o, w, out)
}

type pullAsk struct {
	InFarm
	ServerName string `query:"server_name" required:"true" minLength:"1" maxLength:"253" doc:"the name that a client asks for (SNI)"`
	Schemes    string `query:"signature_schemes" maxLength:"1000" doc:"what it can check: hexadecimal numbers with commas (TLS SignatureScheme); not set: anything"`
	Has        string `header:"If-None-Match" doc:"the ETag of what who asks has"`
}

// pull answers what a server asks at each handshake, so a hand-over is in the audit
// once an hour and not each time.
func (s *server) pull(ctx context.Context, in *pullAsk) (*Handed, error) {
	c, _ := access.CallerOf(ctx)
	l, err := s.guard.Lens(ctx, c, access.KeyExport, in.Farm)
	if err != nil {
		return nil, err
	}
	hello := controller.Hello{ServerName: in.ServerName}
	hello.ECDSA, hello.RSA = takes(in.Schemes)
	o, ok, err := s.OfferFor(ctx, in.Farm, hello, l.Site)
	if err != nil || !ok {
		return &Handed{Status: http.StatusNoContent}, err
	}
	out := &Handed{Status: http.StatusNotModified, ETag: etag(o.Leaf.Fingerprint, FormatPEM), Leaf: o.Leaf.Fingerprint}
	if has(in.Has, out.ETag) {
		return out, nil
	}
	return out, s.handOver(ctx, in.Farm, o, wrapping{format: FormatPEM, often: true}, out)
}

// takes says which signatures a client can check (RFC 8446 §4.2.3): 0x?3 are by ECDSA,
// 0x?1 and 0x080? by RSA.
func takes(schemes string) (ecdsa, rsa bool) {
	if schemes == "" {
		return true, true
	}
	for one := range strings.SplitSeq(schemes, ",") {
		n, err := strconv.ParseUint(one, 16, 16)
		if err != nil {
			continue
		}
		switch tls.SignatureScheme(n) {
		case tls.ECDSAWithP256AndSHA256, tls.ECDSAWithP384AndSHA384, tls.ECDSAWithP521AndSHA512, tls.ECDSAWithSHA1:
			ecdsa = true
		case tls.PSSWithSHA256, tls.PSSWithSHA384, tls.PSSWithSHA512, tls.PKCS1WithSHA256, tls.PKCS1WithSHA384, tls.PKCS1WithSHA512, tls.PKCS1WithSHA1:
			rsa = true
		}
	}
	return ecdsa, rsa
}

// A wrapping is how a certificate is handed out.
type wrapping struct {
	format   string
	cipher   encode.PFXCipher
	alias    string
	password farm.Secret
	often    bool // it is asked for at every handshake
}

func (w wrapping) wrap(b farm.Bundle) ([]byte, error) {
	switch w.format {
	case FormatPFX:
		return encode.PFX(b, encode.PFXOptions{Password: w.password, Cipher: w.cipher})
	case FormatJKS:
		return encode.JKS(b, w.password, w.alias)
	}
	all, err := encode.Combined(b)
	return all.Reveal(), err
}

// handOver opens the key and puts it into the answer. Before that it is written into
// the audit: who, what, and the certificate's fingerprint.
func (s *server) handOver(ctx context.Context, farmName string, o controller.Offer, w wrapping, out *Handed) error {
	k, _ := ctx.Value(askKey{}).(asked)
	if !k.safe {
		return problem(Forbidden, "a key is handed out over TLS or on the same machine only", "ask over https")
	}
	b, err := s.HandOut(ctx, farmName, o)
	if err != nil {
		return err
	}
	body, err := w.wrap(b)
	if err != nil {
		return err
	}
	if err := s.writeDown(ctx, k, o, w); err != nil {
		return err
	}
	out.Status, out.ContentType, out.Body = http.StatusOK, mediaType(w.format), body
	return nil
}

// writeDown puts a hand-over into the audit, unless the same was put there within the
// hour and is asked for at every handshake.
func (s *server) writeDown(ctx context.Context, k asked, o controller.Offer, w wrapping) error {
	from, _, _ := net.SplitHostPort(k.From)
	one := handout{k.Caller.Via + " " + k.Caller.Key, from, o.Leaf.Fingerprint}
	if w.often && s.handed.lately(one, time.Now()) {
		return nil
	}
	word := k.Word
	k.Word = func(name string) string { // a name in the query stands for a site
		if name == "site" {
			return o.Site
		}
		return word(name)
	}
	if err := s.doorkeeper.HandOver(ctx, k.Ask, o.Leaf.Fingerprint); err != nil {
		return err
	}
	s.log.Info("key handed out", "site", o.Site, "leaf", farm.Short(o.Leaf.Fingerprint), "format", w.format, "by", by(ctx), "from", from)
	s.handed.note(one, time.Now())
	return nil
}

type askKey struct{}

// asked is what a handler knows of the way that a request came.
type asked struct {
	audit.Ask
	safe bool // nobody on the way could read the answer
}

// safe reports that nobody on the way can read the answer: it goes over TLS, or stays
// on this machine, where it may go on through a proxy that ends TLS.
func safe(ctx huma.Context, c access.Caller) bool {
	if ctx.TLS() != nil || c.Via == access.ViaSocket {
		return true
	}
	host, _, err := net.SplitHostPort(ctx.RemoteAddr())
	return err == nil && net.ParseIP(host).IsLoopback()
}

// etag names a certificate in a format. It is weak (RFC 9110 §8.8.1): the bytes of a
// PFX differ each time, by their salts.
func etag(leaf, format string) string { return `W/"` + leaf[:min(len(leaf), 32)] + "-" + format + `"` }

// has reports that an If-None-Match names an ETag, by the weak comparison (RFC 9110
// §13.1.2).
func has(header, etag string) bool {
	bare := func(s string) string { return strings.TrimPrefix(strings.TrimSpace(s), "W/") }
	return strings.TrimSpace(header) == "*" || slices.ContainsFunc(strings.Split(header, ","), func(one string) bool { return bare(one) == bare(etag) })
}

// handouts remember what was handed out within the hour, so that a server which asks
// at each handshake does not fill the audit.
type handouts struct {
	mu   sync.Mutex
	last map[handout]time.Time
}

// A handout is one certificate to one caller at one address.
type handout struct{ caller, from, leaf string }

const (
	handoutFor   = time.Hour
	handoutsMost = 100_000 // that are remembered; more are written down again
)

// lately reports that the same was handed out within the hour.
func (h *handouts) lately(one handout, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	at, ok := h.last[one]
	return ok && now.Sub(at) < handoutFor
}

func (h *handouts) note(one handout, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.last == nil || len(h.last) >= handoutsMost {
		h.last = map[handout]time.Time{}
	}
	h.last[one] = now
}
