package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// A Pair is the two files of one certificate as the web server's configuration
// names them: absolute on the node, with forward slashes.
type Pair struct {
	Chain string // leaf first
	Key   string // empty: the key is in the same file
}

func (p Pair) key() string {
	if p.Key == "" {
		return p.Chain
	}
	return p.Key
}

// local is the file of this machine that a node knows by name.
func local(root, name string) string {
	return filepath.Join(root, filepath.FromSlash(path.Clean("/"+name)))
}

// readPairs is loadPairs for a web.
func readPairs(root string, pairs []Pair) (shelf, error) {
	certs, err := loadPairs(root, pairs)
	return shelf{certs: certs}, err
}

// loadPairs reads what the server is configured to serve. Its errors are the
// ones that nginx writes, without what OpenSSL adds to them.
func loadPairs(root string, pairs []Pair) ([]tls.Certificate, error) {
	var all []tls.Certificate
	for _, p := range pairs {
		chain, err := readPEM(root, p.Chain, "certificate", "CERTIFICATE")
		if err != nil {
			return nil, err
		}
		key, err := readPEM(root, p.key(), "certificate key", "PRIVATE KEY")
		if err != nil {
			return nil, err
		}
		cert, err := tls.X509KeyPair(chain, key)
		switch {
		case err == nil:
			all = append(all, cert)
		case strings.Contains(err.Error(), "does not match"): // crypto/tls has no word for it but this
			return nil, fmt.Errorf("SSL_CTX_use_PrivateKey(%q) failed (SSL: key values mismatch)", p.key())
		default:
			return nil, fmt.Errorf("cannot load certificate %q: PEM_read_bio_X509_AUX() failed (SSL: %w)", p.Chain, err)
		}
	}
	return all, nil
}

// readPEM reads a file in which a block of the wanted type must be.
func readPEM(root, name, what, block string) ([]byte, error) {
	text, err := os.ReadFile(local(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot load %s %q: BIO_new_file() failed (SSL: No such file or directory)", what, name)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot load %s %q: BIO_new_file() failed (SSL: %w)", what, name, err)
	}
	for b, rest := pem.Decode(text); b != nil; b, rest = pem.Decode(rest) {
		if strings.HasSuffix(b.Type, block) {
			return text, nil
		}
	}
	return nil, fmt.Errorf("cannot load %s %q: PEM_read_bio() failed (SSL: no start line)", what, name)
}

// selfSigned makes a certificate that nobody trusts: a placeholder, or a chain
// that leads nowhere.
func selfSigned(name string, ca bool) (der []byte, key *ecdsa.PrivateKey, err error) {
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make a key for %s: %w", name, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, nil, fmt.Errorf("make a serial number for %s: %w", name, err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0),
		IsCA: ca, BasicConstraintsValid: true,
	}
	if !ca {
		template.DNSNames = []string{name}
	}
	der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make a certificate for %s: %w", name, err)
	}
	return der, key, nil
}

// placePlaceholders writes a self-signed pair wherever the server has none, as
// packages do so that a server can start.
func placePlaceholders(root, name string, pairs []Pair) error {
	for _, p := range pairs {
		if _, err := os.Stat(local(root, p.Chain)); err == nil {
			continue
		}
		der, key, err := selfSigned(name, false)
		if err != nil {
			return err
		}
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return fmt.Errorf("encode the placeholder's key: %w", err)
		}
		chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		secret := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
		if p.Key == "" {
			chain = append(chain, secret...)
		} else if err := os.WriteFile(local(root, p.Key), secret, 0o600); err != nil {
			return fmt.Errorf("write the placeholder's key: %w", err)
		}
		if err := os.WriteFile(local(root, p.Chain), chain, 0o600); err != nil {
			return fmt.Errorf("write the placeholder: %w", err)
		}
	}
	return nil
}
