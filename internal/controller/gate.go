package controller

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/probe"
)

// gate refuses what clients would refuse once it is live: a leaf that TLSA
// records do not match, or one that must staple an answer nobody gives. The
// pair, the chain, the names and the dates are checked by the deployer.
func (c *Controller) gate(ctx context.Context, a act) error {
	for _, l := range a.version.Leaves {
		if err := staple(l); err != nil {
			return err
		}
	}
	return c.dane(ctx, a)
}

// mustStaple is the TLS feature extension (RFC 7633) asking for status_request.
var (
	mustStapleID = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}
	mustStaple   = []byte{0x30, 0x03, 0x02, 0x01, 0x05}
)

func staple(l farm.Leaf) error {
	block, _ := pem.Decode(l.Chain)
	if block == nil {
		return &faultError{farm.VersionFault, "the version's chain is not PEM"}
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return &faultError{farm.VersionFault, "the version's leaf cannot be read: " + err.Error()}
	}
	for _, e := range leaf.Extensions {
		if e.Id.Equal(mustStapleID) && bytes.Equal(e.Value, mustStaple) && len(leaf.OCSPServer) == 0 {
			return &faultError{farm.VersionFault, "the certificate demands a stapled OCSP answer, but names no OCSP server: clients would refuse it"}
		}
	}
	return nil
}

// daneWithin bounds the questions about TLSA: a resolver that is down must not
// hold a deployment.
const daneWithin = 2 * time.Second

// dane refuses a leaf that the zone's TLSA records speak against (RFC 7671 §8.1:
// the record is published before the certificate changes). Where DNS does not
// answer nothing can be told, and nothing is held.
func (c *Controller) dane(ctx context.Context, a act) error {
	settings, err := a.group.farmSettings(ctx, c, a.Farm)
	if err != nil || len(settings.Resolvers) == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, daneWithin)
	defer cancel()
	for _, e := range a.place.Target.Endpoints {
		_, text, _ := net.SplitHostPort(e.Address)
		port, err := strconv.Atoi(text)
		if err != nil {
			continue
		}
		for _, name := range a.version.Names {
			if err := tlsa(ctx, dnsOf(settings, false).Servers(name), port, name, a.version); err != nil {
				return err
			}
		}
	}
	return nil
}

func tlsa(ctx context.Context, servers []string, port int, name string, v farm.Version) error {
	records, err := probe.TLSA(ctx, servers, port, strings.TrimPrefix(name, "*."))
	if published := err == nil && len(records) > 0; !published {
		return nil // or it cannot be told
	}
	for _, l := range v.Leaves {
		if ok, err := probe.Matches(records, l.Chain); err != nil || !ok {
			return fmt.Errorf("the TLSA records of _%d._tcp.%s do not match the new %s leaf: publish one that does, beside the old, before this certificate goes live", port, name, l.KeyType)
		}
	}
	return nil
}
