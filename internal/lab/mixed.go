package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"github.com/certfarm/certfarm/internal/farm"
)

// pollEvery is how often the readers of the mixed farm look for a new certificate:
// IIS' PollingInterval, and what an App Service takes a day for.
const pollEvery = time.Second

// canaryName is bound at the IIS readers, and no client asks for it.
const canaryName = "canary.shop.test"

// MixedPolicy is LabPolicy with one target at a time, and time for servers that take
// a second for a reload.
func MixedPolicy() farm.Policy {
	p := LabPolicy()
	p.MaxParallel, p.Deadline, p.HealthyDeadline = 1, 5*time.Second, 5*time.Second
	return p
}

// startMixed starts the machines of a farm as large companies have it: every sort
// of place that a certificate goes to, each once or twice.
//
//	web1 web2    Apache, over SSH and SFTP
//	edge         HAProxy in front of them
//	iis1 iis2    poll a share, where a certificate store lies
//	app1 app2    poll a Key Vault
func (m *Machines) startMixed(key ssh.PublicKey) error {
	web, edge, server := m.Layout.Find.look(apache), m.Layout.Find.look(haproxy), m.Layout.Find.look(samba)
	m.mixture = []software{web, edge, server}
	if err := m.startServers(key, web, "web1", "web2"); err != nil {
		return err
	}
	if err := m.startServers(key, edge, "edge"); err != nil {
		return err
	}
	var err error
	if m.share, err = startShare(m.Layout.Dir, m.Layout.Poll, server); err != nil {
		return err
	}
	m.Vault = newVault()
	for _, r := range []struct {
		name string
		read func() (func(context.Context) (shelf, error), error)
	}{{"iis1", m.share.read}, {"iis2", m.share.read}, {"app1", m.Vault.read}, {"app2", m.Vault.read}} {
		if err := m.startReader(r.name, r.read); err != nil {
			return err
		}
	}
	return nil
}

// Mixture says on one line what of a mixed farm is real, with its version, and what
// is a stand-in; empty for another farm.
func (m *Machines) Mixture() string {
	if !m.Layout.Mixed {
		return ""
	}
	return told(m.mixture)
}

// startServers starts nodes with a product; a proxy is in front of all that were
// started before.
func (m *Machines) startServers(key ssh.PublicKey, s software, names ...string) error {
	var behind []Backend
	if s.product == haproxy {
		behind = m.backends()
	}
	nodes := make([]*Node, len(names))
	var all errgroup.Group
	for i, name := range names {
		all.Go(func() (err error) {
			nodes[i], err = StartNode(NodeConfig{
				Name: name, Dir: nodeDir(m.Layout.Dir, name), Authorized: key, software: &s, backends: behind,
			})
			return err
		})
	}
	err := all.Wait()
	for _, n := range nodes {
		if n != nil {
			m.Nodes = append(m.Nodes, n)
		}
	}
	return err
}

func (m *Machines) startReader(name string, read func() (func(context.Context) (shelf, error), error)) error {
	fetch, err := read()
	if err != nil {
		return fmt.Errorf("start the reader %s: %w", name, err)
	}
	dir := nodeDir(m.Layout.Dir, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(dir, "reader.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r, err := startReader(readerConfig{name: name, every: m.Layout.Poll, fetch: fetch, log: log})
	if err != nil {
		return err
	}
	m.Readers = append(m.Readers, r)
	return nil
}
