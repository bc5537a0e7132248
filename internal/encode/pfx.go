package encode

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/certfarm/certfarm/internal/farm"
)

// MaxPFX is how long a PFX file may be that is read, in bytes.
const MaxPFX = 1 << 20

// ErrPassword says that a PFX or JKS file does not open with the password.
var ErrPassword = errors.New("the password does not open the file")

// A PFXCipher is how a PFX file protects what is in it (RFC 7292).
type PFXCipher string

// The ciphers. Windows Server 2016 and older read PFXLegacy alone and answer
// "the password is incorrect" to the other; 2019 and newer, OpenSSL 3 and Java
// read both. PFXOther is met in files of others and never written.
const (
	PFXModern PFXCipher = "aes256-sha256" // PBES2 with AES-256-CBC, MAC by SHA-256
	PFXLegacy PFXCipher = "3des-sha1"     // PBE with 3-key triple DES, MAC by SHA-1
	PFXOther  PFXCipher = "other"
)

// PFXOptions say how a PFX file is written.
type PFXOptions struct {
	Password farm.Secret // may be empty, which protects nothing; ASCII, or Java's keytool will not take it
	Cipher   PFXCipher   // empty: PFXModern
}

// NewPFXPassword makes a password of 26 capital letters and digits with 128
// random bits: ASCII, since Java's tools read other letters differently.
func NewPFXPassword() farm.Secret { return farm.NewSecret([]byte(rand.Text())) }

// PFX is a bundle as a PKCS#12 file: the key, its leaf and the chain. Two calls
// give different bytes, for the salts are random.
func PFX(b farm.Bundle, o PFXOptions) ([]byte, error) {
	encoder := pkcs12.Modern2023 // not Modern2026: OpenSSL 3.0 and Java 17 cannot check its MAC
	switch o.Cipher {
	case "", PFXModern:
	case PFXLegacy:
		encoder = pkcs12.LegacyDES
	default:
		return nil, fmt.Errorf("writing a PFX: %q is no cipher: it is %s or %s", o.Cipher, PFXModern, PFXLegacy)
	}
	if _, err := Pair(b.Chain, b.Key.Reveal()); err != nil {
		return nil, fmt.Errorf("writing a PFX: %w", err)
	}
	chain, err := Chain(b.Chain)
	if err != nil {
		return nil, err
	}
	key, err := Key(b.Key.Reveal())
	if err != nil {
		return nil, err
	}
	data, err := encoder.Encode(key, chain[0], chain[1:], string(o.Password.Reveal()))
	if err != nil {
		return nil, fmt.Errorf("writing a PFX of %s: %w", b, err)
	}
	return data, nil
}

// OpenPFX reads a PKCS#12 file with one key. The chain of the bundle begins with
// the leaf of that key, wherever the file has it; the names are the leaf's. A
// password that does not open it is ErrPassword, a key whose leaf is not in it
// ErrMismatch.
func OpenPFX(data []byte, password farm.Secret) (farm.Bundle, error) {
	if _, err := PFXCipherOf(data); err != nil { // also bounds what the password's derivation may cost
		return farm.Bundle{}, err
	}
	key, first, more, err := pkcs12.DecodeChain(data, string(password.Reveal()))
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return farm.Bundle{}, fmt.Errorf("opening a PFX: %w", ErrPassword)
	}
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("opening a PFX: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return farm.Bundle{}, fmt.Errorf("opening a PFX: a %T cannot sign", key)
	}
	return bundleOf(signer, append([]*x509.Certificate{first}, more...))
}

// bundleOf puts a key and its certificates together, leaf first: Windows may
// write the leaf last.
func bundleOf(key crypto.Signer, all []*x509.Certificate) (farm.Bundle, error) {
	if len(all) > MaxChain {
		return farm.Bundle{}, fmt.Errorf("reading certificates: more than %d of them", MaxChain)
	}
	public, comparable := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	at := slices.IndexFunc(all, func(c *x509.Certificate) bool { return comparable && public.Equal(c.PublicKey) })
	if at < 0 {
		return farm.Bundle{}, ErrMismatch
	}
	leaf := all[at]
	secret, err := marshalKey(key)
	if err != nil {
		return farm.Bundle{}, err
	}
	var chain bytes.Buffer
	for _, c := range slices.Concat([]*x509.Certificate{leaf}, all[:at], all[at+1:]) {
		if err := pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}); err != nil {
			return farm.Bundle{}, err
		}
	}
	kind, err := keyType(leaf.PublicKey)
	if err != nil {
		kind = "" // another's choice of key is no reason not to look at the file
	}
	return farm.Bundle{Leaf: farm.Fingerprint(leaf.Raw), KeyType: kind, Names: names(leaf), Chain: chain.Bytes(), Key: secret}, nil
}
