package issue

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/certfarm/certfarm/internal/farm"
)

// A Request is a new key and the signing request made with it.
type Request struct {
	Key farm.Secret // PEM, PKCS#8
	CSR []byte      // DER (RFC 2986)
}

// maxCommonName is ub-common-name of RFC 5280, appendix A.1.
const maxCommonName = 64

// NewRequest makes a key of the given type and a request for the names, which
// are DNS names as A-labels, or IP addresses. The first DNS name that fits into
// 64 characters becomes the common name; if none fits there is none.
func NewRequest(names []string, kind farm.KeyType) (Request, error) {
	template, err := request(names)
	if err != nil {
		return Request{}, err
	}
	key, err := NewKey(kind)
	if err != nil {
		return Request{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return Request{}, fmt.Errorf("signing request for %s: %w", strings.Join(names, ", "), err)
	}
	text, err := EncodeKey(key)
	if err != nil {
		return Request{}, err
	}
	return Request{Key: text, CSR: csr}, nil
}

func request(names []string) (*x509.CertificateRequest, error) {
	if len(names) == 0 {
		return nil, errors.New("signing request: no names")
	}
	r := &x509.CertificateRequest{}
	seen := map[string]bool{}
	for _, name := range names {
		name = strings.ToLower(name)
		if name == "" || seen[name] {
			return nil, fmt.Errorf("signing request: the name %q is empty or stands twice", name)
		}
		seen[name] = true
		if ip := net.ParseIP(name); ip != nil {
			r.IPAddresses = append(r.IPAddresses, ip)
			continue
		}
		r.DNSNames = append(r.DNSNames, name)
		if r.Subject.CommonName == "" && len(name) <= maxCommonName {
			r.Subject = pkix.Name{CommonName: name}
		}
	}
	return r, nil
}

// NewKey makes a private key.
func NewKey(kind farm.KeyType) (crypto.Signer, error) {
	var key crypto.Signer
	var err error
	switch kind {
	case farm.EC256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case farm.EC384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case farm.RSA2048:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case farm.RSA3072:
		key, err = rsa.GenerateKey(rand.Reader, 3072)
	case farm.RSA4096:
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		return nil, fmt.Errorf("new key: no key type %q; there are %v", kind, farm.KeyTypes)
	}
	if err != nil {
		return nil, fmt.Errorf("new %s key: %w", kind, err)
	}
	return key, nil
}

// EncodeKey is the PEM (PKCS#8) of a private key.
func EncodeKey(key crypto.Signer) (farm.Secret, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return farm.Secret{}, fmt.Errorf("encode a private key: %w", err)
	}
	return farm.NewSecret(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// DecodeKey reads the PEM (PKCS#8) of a private key. The error says nothing of
// what it read.
func DecodeKey(text farm.Secret) (crypto.Signer, error) {
	block, _ := pem.Decode(text.Reveal())
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("decode a private key: not PEM of type PRIVATE KEY (PKCS#8)")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("decode a private key: not PKCS#8")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("decode a private key: a %T cannot sign", key)
	}
	return signer, nil
}
