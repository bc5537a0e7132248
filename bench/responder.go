package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// What a name server is measured with.
const (
	dnsClients = 16
	dnsFor     = 2 * time.Second
	dnsRounds  = 3
	dnsZone    = "auth.example.net"
)

// measureResponder compares the controllers' own name server, which asks the store
// for each query, with Knot, which has the zone in memory. There is no goal: it is
// to be known.
func measureResponder(ctx context.Context, dir string) ([]figure, error) {
	path, err := exec.LookPath("knotd")
	if err != nil {
		fmt.Println("bench responder: knotd is not installed: not measured")
		return nil, nil
	}
	ours, stop, err := serveZone(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	knot, err := startKnot(ctx, path, dir)
	if err != nil {
		return nil, err
	}
	var us, them []float64
	for range dnsRounds {
		for address, rates := range map[string]*[]float64{ours: &us, knot: &them} {
			rate, err := hammer(ctx, address)
			if err != nil {
				return nil, err
			}
			*rates = append(*rates, rate)
		}
	}
	return []figure{{
		name: "responder", unit: "/s", value: median(us), floor: median(them), goal: atLeast(0),
		notes: []string{fmt.Sprintf("TXT queries over UDP by %d clients, one after another each: median of %d rounds of %s", dnsClients, dnsRounds, dnsFor)},
	}}, nil
}

// serveZone serves the zone from a store of its own, with two values at one name.
func serveZone(ctx context.Context, dir string) (address string, stop func(), err error) {
	s, err := store.Open(ctx, filepath.Join(dir, "responder.db"), store.Options{})
	if err != nil {
		return "", nil, err
	}
	zone := fmt.Sprintf(`{"zone":%q,"servers":[{"host":"ns1.%s","addresses":["192.0.2.1"]}],"ttl":5}`, dnsZone, dnsZone)
	err = s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.SaveFarm(ctx, farm.Farm{
			Name: benchFarm, DNS: []farm.DNS{{Name: "auth", Provider: farm.Builtin, Options: []byte(zone)}},
		}, []byte("farm: "+benchFarm), "bench", 0)
		return errors.Join(err, tx.PutRecord(ctx, "shop."+dnsZone, "one"), tx.PutRecord(ctx, "shop."+dnsZone, "two"))
	})
	if err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	config, lines := controller.Real(s, secret.Fresh(), nil)
	server, err := dnsserve.Listen(ctx, dnsserve.Config{
		Source: controller.New(config).ZoneSource(), Addresses: []string{"127.0.0.1:0"}, Rate: 1 << 30,
	})
	if err != nil {
		return "", nil, errors.Join(err, lines.Close(), s.Close())
	}
	return server.Addresses()[0], func() {
		server.Close()
		_ = errors.Join(lines.Close(), s.Close()) // nothing was written that is kept
	}, nil
}

// startKnot runs Knot DNS with the same zone until the context ends.
func startKnot(ctx context.Context, path, dir string) (address string, err error) {
	folder := filepath.Join(dir, "knot")
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	address = free.LocalAddr().String()
	zone := "$ORIGIN " + dnsZone + ".\n@ 300 SOA ns1 hostmaster 1 3600 600 604800 5\n@ 300 NS ns1\nns1 300 A 192.0.2.1\nshop 5 TXT \"one\"\nshop 5 TXT \"two\"\n"
	conf := fmt.Sprintf("server:\n    rundir: %[1]s\n    listen: %[2]s\ndatabase:\n    storage: %[1]s\nzone:\n  - domain: %[3]s\n    file: %[1]s/zone\n",
		folder, strings.Replace(address, ":", "@", 1), dnsZone)
	if err := errors.Join(
		free.Close(), os.MkdirAll(folder, 0o700),
		os.WriteFile(filepath.Join(folder, "zone"), []byte(zone), 0o600), os.WriteFile(filepath.Join(folder, "knot.conf"), []byte(conf), 0o600),
	); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, "-c", filepath.Join(folder, "knot.conf"))
	if err := cmd.Start(); err != nil {
		return "", err
	}
	context.AfterFunc(ctx, func() { _ = cmd.Wait() })
	ask := time.NewTicker(20 * time.Millisecond)
	defer ask.Stop()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); <-ask.C {
		reply, _, err := new(dns.Client).ExchangeContext(ctx, question(), address)
		if err == nil && len(reply.Answer) == 2 {
			return address, nil
		}
	}
	return "", errors.New("knotd does not answer")
}

func question() *dns.Msg { return new(dns.Msg).SetQuestion("shop."+dnsZone+".", dns.TypeTXT) }

// hammer asks one server for a while, and returns the answers a second.
func hammer(ctx context.Context, address string) (float64, error) {
	packet, err := question().Pack()
	if err != nil {
		return 0, err
	}
	counts := make([]int, dnsClients)
	var g errgroup.Group
	begun := time.Now()
	for i := range counts {
		g.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "udp", address)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			answer := make([]byte, 4096)
			for time.Since(begun) < dnsFor {
				if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
					return err
				}
				if _, err := conn.Write(packet); err != nil {
					return err
				}
				n, err := conn.Read(answer)
				if err != nil || n < 12 || answer[7] != 2 {
					return fmt.Errorf("%s gave %d bytes: %w", address, n, err)
				}
				counts[i]++
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(begun).Seconds(), nil
}
