package main

import (
	"bytes"
	"context"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// chainBytes is about the size of a real chain in PEM: leaf and intermediate.
const chainBytes = 2800

// perCommit is how many sites are written at a time.
const perCommit = 5000

// filled is the path of a store that keeps n sites, made when it is first asked
// for: each site has a target, a version, a certificate, its order, and a check that is due in a month or more.
func filled(ctx context.Context, dir string, n int) (path string, err error) {
	dir = filepath.Join(dir, fmt.Sprintf("kept%d", n))
	path = filepath.Join(dir, databaseName)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	s, err := openNew(ctx, dir)
	if err != nil {
		return "", err
	}
	defer func() {
		if closed := s.Close(); err == nil {
			err = closed
		}
	}()
	var sites []farm.Site
	for i := range n {
		sites = append(sites, keptSite(i))
	}
	err = s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, farm.Farm{
			Name: benchFarm, Sites: sites,
			Nodes:   []farm.Node{{Name: "web1", Address: "127.0.0.1", Shell: "posix", Local: true}},
			Issuers: []farm.Issuer{{Name: caName, Directory: "https://ca.bench.test/dir"}},
		}, []byte("farm: bench\n"), "bench", 0)
		return err
	})
	for i := 0; err == nil && i < n; i += perCommit {
		err = s.Update(ctx, func(tx *store.Tx) error { return keep(ctx, tx, i, min(n, i+perCommit)) })
	}
	return path, err
}

func keptSite(i int) farm.Site {
	name := siteName(i)
	return farm.Site{
		Name: name, Names: []string{dnsName(i), "www." + dnsName(i)}, Issuer: caName, KeyTypes: []farm.KeyType{farm.EC256},
		Strategy: farm.Central, Validations: []farm.Validation{{Method: farm.HTTP01, Via: farm.Gateway}},
		Policy: farm.Policy{MaxParallel: 2, Soak: time.Minute, Deadline: time.Minute, HealthyDeadline: time.Minute},
		Targets: []farm.Target{{
			Name: name + "@web1", Site: name, Node: "web1", Kind: "files",
			Options:  []byte(`{"pem":"/etc/tls/` + name + `.pem","store":"/var/lib/certfarm","mode":"0600"}`),
			Identity: "web1 file /etc/tls/" + name + ".pem", Group: "web1/files",
			Endpoints: []farm.Endpoint{{Address: "127.0.0.1:443", SNI: dnsName(i)}},
		}},
	}
}

// keep writes what is known of some sites once they have a certificate.
func keep(ctx context.Context, tx *store.Tx, from, to int) error {
	begin := tx.Now()
	for i := from; i < to; i++ {
		v := farm.Version{
			ID: fmt.Sprintf("ver_%06d", i), Farm: benchFarm, Site: siteName(i), Names: []string{dnsName(i)}, Issuer: caName,
			Leaves: []farm.Leaf{{
				Fingerprint: farm.Fingerprint([]byte(siteName(i))), KeyType: farm.EC256, Serial: fmt.Sprintf("%032x", i),
				NotBefore: begin, NotAfter: begin.Add(90 * 24 * time.Hour), Chain: chain(i), Key: farm.KeyRef{Sealed: siteName(i)},
			}},
		}
		due := begin.Add(30*24*time.Hour + time.Duration(i)*time.Second)
		c := farm.Certificate{
			Farm: benchFarm, Site: v.Site, Version: v.ID, Verdict: "it has two thirds of its life left", Next: due, LastOrder: begin,
		}
		if err := tx.PutVersion(ctx, v); err != nil {
			return err
		}
		if err := tx.PutCertificate(ctx, c); err != nil {
			return err
		}
		if err := tx.PutOrder(ctx, farm.Order{
			ID: "ord_" + v.Site, Farm: benchFarm, Site: v.Site, Intent: intentOf(v.Site), Issuer: caName, Names: v.Names,
			State: farm.OrderDone, Created: begin, Chain: v.Leaves[0].Chain,
		}); err != nil {
			return err
		}
		if err := tx.Enqueue(ctx, farm.Job{Farm: benchFarm, Kind: "check", Subject: v.Site, RunAt: due}); err != nil {
			return err
		}
	}
	return nil
}

func intentOf(site string) string { return "int_" + site }

// chain is text of the size of a chain, another one for each site.
func chain(i int) []byte {
	der := bytes.Repeat([]byte{byte(i), byte(i >> 8), byte(i >> 16), 7}, chainBytes*3/4/4)
	return []byte(strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))))
}
