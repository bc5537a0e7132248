package encode

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// Facts is what a PEM chain says of its leaf. Key is left empty.
func Facts(chain []byte) (farm.Leaf, error) {
	all, err := Chain(chain)
	if err != nil {
		return farm.Leaf{}, err
	}
	leaf, top := all[0], all[len(all)-1]
	kind, err := keyType(leaf.PublicKey)
	if err != nil {
		return farm.Leaf{}, err
	}
	root := top.Issuer.String()
	if root == "" {
		root = top.Subject.String()
	}
	return farm.Leaf{
		Fingerprint: farm.Fingerprint(leaf.Raw),
		KeyType:     kind,
		Serial:      fmt.Sprintf("%x", leaf.SerialNumber),
		NotBefore:   leaf.NotBefore,
		NotAfter:    leaf.NotAfter,
		Chain:       chain,
		Shape:       farm.Shape{Root: root, EKU: usages(leaf), Names: strings.Join(names(leaf), ",")},
	}, nil
}

// keyType names a public key's algorithm and size.
func keyType(key crypto.PublicKey) (farm.KeyType, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		switch k.Curve {
		case elliptic.P256():
			return farm.EC256, nil
		case elliptic.P384():
			return farm.EC384, nil
		}
		return "", fmt.Errorf("a key on the curve %s is not one that we know", k.Curve.Params().Name)
	case *rsa.PublicKey:
		kind := farm.KeyType("rsa" + strconv.Itoa(k.N.BitLen()))
		if !slices.Contains(farm.KeyTypes, kind) {
			return "", fmt.Errorf("an RSA key of %d bits is not one that we know", k.N.BitLen())
		}
		return kind, nil
	}
	return "", fmt.Errorf("a %T is not a key that we know", key)
}

// usages lists a leaf's extended key usages by name, sorted.
func usages(leaf *x509.Certificate) string {
	var all []string
	for _, u := range leaf.ExtKeyUsage {
		switch u {
		case x509.ExtKeyUsageServerAuth:
			all = append(all, "serverAuth")
		case x509.ExtKeyUsageClientAuth:
			all = append(all, "clientAuth")
		default:
			all = append(all, "eku"+strconv.Itoa(int(u)))
		}
	}
	for _, oid := range leaf.UnknownExtKeyUsage {
		all = append(all, oid.String())
	}
	slices.Sort(all)
	return strings.Join(all, ",")
}

// PlaceholderName is the common name of our stand-in.
const PlaceholderName = "certfarm placeholder"

// Placeholder makes a self-signed certificate for the names, so that a server
// can start before the first real one is there. No client trusts it.
func Placeholder(names []string, now time.Time) (farm.Bundle, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("making a placeholder: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("making a placeholder: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: PlaceholderName},
		DNSNames:     names,
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(10, 0, 0), // it must outlast a farm's trouble
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		return farm.Bundle{}, fmt.Errorf("making a placeholder: %w", err)
	}
	secret, err := marshalKey(key)
	if err != nil {
		return farm.Bundle{}, err
	}
	return farm.Bundle{
		Version: "placeholder",
		Leaf:    farm.Fingerprint(der),
		KeyType: farm.EC256,
		Names:   names,
		Chain:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:     secret,
	}, nil
}

// IsPlaceholder reports that a leaf is our stand-in.
func IsPlaceholder(leaf *x509.Certificate) bool {
	return leaf.Subject.CommonName == PlaceholderName && leaf.Issuer.CommonName == PlaceholderName
}
