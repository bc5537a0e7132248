package target

import (
	"encoding/json"
	"fmt"

	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// part is what of a leaf a file holds: its value is the file's name in a
// version's folder.
type part string

const (
	combined  part = "combined.pem" // leaf, chain and key
	chainOnly part = "chain.pem"
	keyOnly   part = "key.pem"
	pkcs12    part = "keystore.p12"
	javaStore part = "keystore.jks"
	sdsSecret part = "sds.json" // chain and key as a secret of Envoy
)

// layouts are the files that a leaf may become. Each has the chain in its first
// file and the key in its last.
var layouts = [][]part{{combined}, {chainOnly, keyOnly}, {pkcs12}, {javaStore}, {sdsSecret}}

// public reports that there is no key in such a file.
func (p part) public() bool { return p == chainOnly }

// sealed reports that such a file opens with a password, which another target of
// the same reload group need not have.
func (p part) sealed() bool { return p == pkcs12 || p == javaStore }

// format is what files look like whose content is more than PEM.
type format struct {
	Password farm.Secret      // of key stores
	Cipher   encode.PFXCipher // of a PKCS#12
	Alias    string           // of the entry in a JKS
	Secret   string           // name of the secret for Envoy

	known *encode.Memory // of pairs that were checked; nil: none
}

// text is what a part of a bundle looks like.
func (o format) text(p part, b farm.Bundle) ([]byte, error) {
	switch p {
	case chainOnly:
		return encode.ChainPEM(b)
	case keyOnly:
		key, err := encode.KeyPEM(b)
		return key.Reveal(), err
	case pkcs12:
		return encode.PFX(b, encode.PFXOptions{Password: o.Password, Cipher: o.Cipher})
	case javaStore:
		return encode.JKS(b, o.Password, o.Alias)
	case sdsSecret:
		return o.sds(b)
	default:
		both, err := encode.Combined(b)
		return both.Reveal(), err
	}
}

// pair is the chain and the key of a place, PEM. A file that is not there has
// none, which is no error; one that does not open is.
func (o format) pair(c content, p place) (chain, key []byte, err error) {
	first, last := c[p.Files[0].Name], c[p.Files[len(p.Files)-1].Name]
	if len(first)+len(last) == 0 {
		return nil, nil, nil
	}
	var b farm.Bundle
	switch p.Files[0].Part {
	case pkcs12:
		b, err = encode.OpenPFX(first, o.Password)
	case javaStore:
		b, err = encode.OpenJKS(first, o.Password, o.Alias)
	case sdsSecret:
		return openSDS(first)
	default:
		return first, last, nil
	}
	return b.Chain, b.Key.Reveal(), err
}

// sds is a bundle as Envoy reads it from a file (DiscoveryResponse with one
// Secret, envoy.extensions.transport_sockets.tls.v3). Chain and key stand in it,
// so that no reader can see the one without the other.
type sds struct {
	Resources []sdsResource `json:"resources"`
}

type sdsResource struct {
	Type string  `json:"@type"`
	Name string  `json:"name"`
	TLS  sdsPair `json:"tls_certificate"`
}

type sdsPair struct {
	Chain sdsText `json:"certificate_chain"`
	Key   sdsText `json:"private_key"`
}

type sdsText struct {
	Inline string `json:"inline_string"`
}

const sdsType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

func (o format) sds(b farm.Bundle) ([]byte, error) {
	chain, err := encode.ChainPEM(b)
	if err != nil {
		return nil, err
	}
	key, err := encode.KeyPEM(b)
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(sds{[]sdsResource{{
		Type: sdsType, Name: o.Secret,
		TLS: sdsPair{Chain: sdsText{string(chain)}, Key: sdsText{string(key.Reveal())}},
	}}}, "", "  ")
	return append(text, '\n'), err
}

func openSDS(text []byte) (chain, key []byte, err error) {
	var s sds
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, nil, fmt.Errorf("reading a secret of Envoy: %w", err)
	}
	if len(s.Resources) != 1 || s.Resources[0].Type != sdsType {
		return nil, nil, fmt.Errorf("reading a secret of Envoy: %d resources, or another type than a TLS secret", len(s.Resources))
	}
	pair := s.Resources[0].TLS
	return []byte(pair.Chain.Inline), []byte(pair.Key.Inline), nil
}
