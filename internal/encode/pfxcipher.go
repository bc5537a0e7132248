package encode

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// maxRounds is how often a PFX file may ask for its password to be hashed; what
// is usual is 2,048 to 600,000.
const maxRounds = 1 << 20

// The names that algorithms and parts of a PFX file have (RFC 7292, appendix C
// and D; RFC 8018; RFC 5758).
const (
	oidData     = "1.2.840.113549.1.7.1"
	oidSealed   = "1.2.840.113549.1.7.6"       // encryptedData
	oidKeyBag   = "1.2.840.113549.1.12.10.1.2" // pkcs8ShroudedKeyBag
	oidPBES2    = "1.2.840.113549.1.5.13"
	oidTriple   = "1.2.840.113549.1.12.1.3" // pbeWithSHAAnd3-KeyTripleDES-CBC
	oidAES256   = "2.16.840.1.101.3.4.1.42"
	oidSHA1     = "1.3.14.3.2.26"
	oidSHA256   = "2.16.840.1.101.3.4.2.1"
	oidSHA512   = "2.16.840.1.101.3.4.2.3"
	pfxVersion3 = 3
)

// The parts of a PFX file that stand outside what the password seals.
type (
	pfxOuter struct {
		Version int
		Safe    pfxContent
		Mac     pfxMac `asn1:"optional"`
	}
	pfxContent struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"tag:0,explicit,optional"`
	}
	pfxMac struct {
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
		Salt   []byte
		Rounds int `asn1:"optional,default:1"`
	}
	pfxSealed struct {
		Version int
		Info    struct {
			Type      asn1.ObjectIdentifier
			Algorithm pkix.AlgorithmIdentifier
			Content   asn1.RawValue `asn1:"tag:0,optional"`
		}
	}
	pfxBag struct {
		ID         asn1.ObjectIdentifier
		Value      asn1.RawValue `asn1:"tag:0,explicit"`
		Attributes asn1.RawValue `asn1:"set,optional"`
	}
	pfxKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbeParams struct { // also the beginning of PBKDF2-params
		Salt   asn1.RawValue
		Rounds int
	}
	pbes2Params struct {
		Derivation pkix.AlgorithmIdentifier
		Encryption pkix.AlgorithmIdentifier
	}
)

// PFXCipherOf says how a PFX file is protected, without its password. A file
// without a MAC, or that would take unreasonably long to open, is an error.
func PFXCipherOf(data []byte) (PFXCipher, error) {
	cipher, err := pfxCipher(data)
	if err != nil {
		return "", fmt.Errorf("reading a PFX: %w", err)
	}
	return cipher, nil
}

func pfxCipher(data []byte) (PFXCipher, error) {
	if len(data) > MaxPFX {
		return "", fmt.Errorf("%d bytes, at most %d are taken", len(data), MaxPFX)
	}
	var outer pfxOuter
	if err := whole(data, &outer); err != nil {
		return "", err
	}
	if outer.Version != pfxVersion3 || outer.Safe.Type.String() != oidData {
		return "", errors.New("it is not one that is protected by a password")
	}
	mac := outer.Mac.Digest.Algorithm.Algorithm.String()
	if mac != oidSHA1 && mac != oidSHA256 && mac != oidSHA512 {
		return "", fmt.Errorf("its MAC is %q, which Windows, OpenSSL and Java do not all check", mac)
	}
	if outer.Mac.Rounds < 1 || outer.Mac.Rounds > maxRounds {
		return "", errTooLong
	}
	algorithms, err := sealers(outer.Safe)
	if err != nil {
		return "", err
	}
	return judge(mac, algorithms)
}

var errTooLong = fmt.Errorf("it asks for more than %d rounds of hashing the password", maxRounds)

// sealers lists the algorithms that seal the parts of a PFX file.
func sealers(safe pfxContent) ([]pkix.AlgorithmIdentifier, error) {
	var parts []pfxContent
	if err := inside(safe, &parts); err != nil {
		return nil, err
	}
	var all []pkix.AlgorithmIdentifier
	for _, part := range parts {
		if part.Type.String() == oidSealed {
			var sealed pfxSealed
			if err := whole(part.Content.Bytes, &sealed); err != nil {
				return nil, err
			}
			all = append(all, sealed.Info.Algorithm)
			continue
		}
		var bags []pfxBag
		if err := inside(part, &bags); err != nil {
			return nil, err
		}
		for _, bag := range bags {
			if bag.ID.String() != oidKeyBag {
				continue
			}
			var key pfxKey
			if err := whole(bag.Value.Bytes, &key); err != nil {
				return nil, err
			}
			all = append(all, key.Algorithm)
		}
	}
	return all, nil
}

// judge names the cipher when all parts have the same.
func judge(mac string, algorithms []pkix.AlgorithmIdentifier) (PFXCipher, error) {
	modern, legacy := mac == oidSHA256, mac == oidSHA1
	for _, a := range algorithms {
		inner, err := derivation(a)
		if err != nil {
			return "", err
		}
		modern = modern && inner.Encryption.Algorithm.String() == oidAES256
		legacy = legacy && a.Algorithm.String() == oidTriple
	}
	switch {
	case len(algorithms) > 0 && modern:
		return PFXModern, nil
	case len(algorithms) > 0 && legacy:
		return PFXLegacy, nil
	}
	return PFXOther, nil
}

// derivation bounds how long the password is hashed for an algorithm, and takes
// PBES2 apart; others have nothing in them.
func derivation(a pkix.AlgorithmIdentifier) (inner pbes2Params, err error) {
	params := a.Parameters.FullBytes
	if a.Algorithm.String() == oidPBES2 {
		if err := whole(params, &inner); err != nil {
			return inner, err
		}
		params = inner.Derivation.Parameters.FullBytes
	}
	var rounds pbeParams
	if _, err := asn1.Unmarshal(params, &rounds); err != nil {
		return inner, err
	}
	if rounds.Rounds < 1 || rounds.Rounds > maxRounds {
		return inner, errTooLong
	}
	return inner, nil
}

// inside reads what lies in an octet string in a content.
func inside(c pfxContent, into any) error {
	var octets []byte
	if err := whole(c.Content.Bytes, &octets); err != nil {
		return err
	}
	return whole(octets, into)
}

// whole reads all of data.
func whole(data []byte, into any) error {
	rest, err := asn1.Unmarshal(data, into)
	if err == nil && len(rest) > 0 {
		err = errors.New("something follows its end")
	}
	return err
}
