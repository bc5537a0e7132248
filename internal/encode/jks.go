package encode

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/pavlo-v-chernykh/keystore-go/v4"

	"github.com/certfarm/certfarm/internal/farm"
)

// minJKSPassword is the shortest password that Java's keytool takes.
const minJKSPassword = 6

// JKS is a bundle as a Java key store of the old kind, with one entry under an
// alias, which is written in lower case. The password is the store's and the
// key's. Java 9 and newer read PKCS#12, too, which protects the key better.
func JKS(b farm.Bundle, password farm.Secret, alias string) ([]byte, error) {
	if alias == "" {
		return nil, errors.New("writing a Java key store: no alias for its entry")
	}
	leaf, err := Pair(b.Chain, b.Key.Reveal())
	if err != nil {
		return nil, fmt.Errorf("writing a Java key store: %w", err)
	}
	chain, err := Chain(b.Chain)
	if err != nil {
		return nil, err
	}
	key, err := Key(b.Key.Reveal())
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("writing a private key: %w", err)
	}
	entry := keystore.PrivateKeyEntry{CreationTime: leaf.NotBefore, PrivateKey: der} // the time is shown, and nothing depends on it
	for _, c := range chain {
		entry.CertificateChain = append(entry.CertificateChain, keystore.Certificate{Type: "X509", Content: c.Raw})
	}
	store := keystore.New(keystore.WithMinPasswordLen(minJKSPassword))
	var out bytes.Buffer
	err = store.SetPrivateKeyEntry(alias, entry, bytes.Clone(password.Reveal()))
	if err == nil {
		err = store.Store(&out, bytes.Clone(password.Reveal()))
	}
	if errors.Is(err, keystore.ErrShortPassword) {
		err = fmt.Errorf("the password has fewer than %d characters, which Java does not take", minJKSPassword)
	}
	if err != nil {
		return nil, fmt.Errorf("writing a Java key store of %s: %w", b, err)
	}
	return out.Bytes(), nil
}

// OpenJKS reads the entry under an alias of a Java key store of the old kind. A
// password that does not open it is ErrPassword, and so is a file whose
// bytes were changed: the format cannot tell these apart.
func OpenJKS(data []byte, password farm.Secret, alias string) (farm.Bundle, error) {
	if len(data) > MaxPFX {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: %d bytes, at most %d are taken", len(data), MaxPFX)
	}
	if err := checkJKS(data); err != nil {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: %w", err)
	}
	store := keystore.New()
	if err := store.Load(bytes.NewReader(data), bytes.Clone(password.Reveal())); err != nil {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: %w (%w)", ErrPassword, err)
	}
	entry, err := store.GetPrivateKeyEntry(alias, bytes.Clone(password.Reveal()))
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: entry %q: %w", alias, err)
	}
	var chain []*x509.Certificate
	for _, c := range entry.CertificateChain {
		parsed, err := x509.ParseCertificate(c.Content)
		if err != nil {
			return farm.Bundle{}, fmt.Errorf("opening a Java key store: %w", err)
		}
		chain = append(chain, parsed)
	}
	key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return farm.Bundle{}, fmt.Errorf("opening a Java key store: a %T cannot sign", key)
	}
	return bundleOf(signer, chain)
}

// The begin of a Java key store, and the kinds of its entries.
const (
	jksMagic   = 0xfeedfeed
	jksVersion = 2
	jksKey     = 1
	jksTrusted = 2
)

var errNoJKS = errors.New("it is no Java key store of the kind JKS, or it is cut off")

// checkJKS walks through the lengths in a key store: the library takes as much
// memory as these ask for, whether the file has it or not.
func checkJKS(data []byte) error {
	w := jksWalk{rest: data}
	if w.number(4) != jksMagic || w.number(4) != jksVersion {
		return errNoJKS
	}
	for range w.number(4) {
		kind := w.number(4)
		w.skip(2) // alias
		w.number(8)
		switch kind {
		case jksKey:
			w.skip(4)
			w.certificates()
		case jksTrusted:
			w.certificate()
		default:
			w.broken = true
		}
		if w.broken {
			return errNoJKS
		}
	}
	return nil
}

// jksWalk is what is left of a key store; broken once it was too short.
type jksWalk struct {
	rest   []byte
	broken bool
}

// number reads an unsigned number of n bytes; 0 where there are fewer.
func (w *jksWalk) number(n int) uint64 {
	if w.broken = w.broken || len(w.rest) < n; w.broken {
		return 0
	}
	var eight [8]byte
	copy(eight[8-n:], w.rest[:n])
	w.rest = w.rest[n:]
	return binary.BigEndian.Uint64(eight[:])
}

// skip passes over something that is preceded by its length, a number of n bytes.
func (w *jksWalk) skip(n int) {
	length := w.number(n)
	if w.broken = w.broken || uint64(len(w.rest)) < length; !w.broken {
		w.rest = w.rest[length:]
	}
}

// certificates passes over a chain.
func (w *jksWalk) certificates() {
	count := w.number(4)
	w.broken = w.broken || count > MaxChain
	for ; count > 0 && !w.broken; count-- {
		w.certificate()
	}
}

func (w *jksWalk) certificate() {
	w.skip(2) // type
	w.skip(4)
}
