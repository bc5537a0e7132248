package lab

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"
)

// A Layout is what a lab consists of. The zero value of each field but Dir is
// of use.
type Layout struct {
	Dir   string   // where everything is written
	Nodes int      // 1 to MaxNodes; 0: 3
	Names []string // DNS names of the site; none: shop.test and www.shop.test

	Pairs       []Pair        // what webd serves on each node; none: DefaultPEM
	Placeholder bool          // nodes begin with a self-signed certificate
	Workers     int           // of each webd
	ReloadTime  time.Duration // how long `webd reload` takes
	CutOver     time.Duration // how long after a reload the last worker has changed
	RTT         time.Duration // round trip time to the nodes, SSH and HTTPS

	// Mixed makes it the mixed farm, in place of Nodes nodes of one sort: see
	// Machines.Mixture. Of the fields above it heeds Dir and Names.
	Mixed bool
	Poll  time.Duration // how often its readers look for a new certificate; 0: 1 s
	Find  Finder        // finds the real servers of a mixed farm; nil: those of this machine
}

// MaxNodes bounds a lab: each node is three ports and some goroutines.
const MaxNodes = 100

// ErrNodes says that a lab cannot have so many nodes.
var ErrNodes = fmt.Errorf("a lab has 1 to %d nodes", MaxNodes)

// Machines are the machines of a lab: name server, balancer and nodes, and the
// key with which the controller logs in.
type Machines struct {
	Layout   Layout // with the defaults filled in
	DNS      *DNS
	Balancer *Balancer
	Nodes    []*Node // web1, web2, …
	KeyFile  string  // the controller's SSH key, OpenSSH format

	// Of a mixed farm alone:
	Readers []*Reader // iis1 and iis2 of the share, app1 and app2 of the vault
	Vault   *Vault
	share   *share
	mixture []software
}

// StartMachines starts the machines of a layout, on free ports of 127.0.0.1.
func StartMachines(l Layout) (*Machines, error) {
	if l.Nodes == 0 {
		l.Nodes = 3
	}
	if l.Nodes < 1 || l.Nodes > MaxNodes {
		return nil, fmt.Errorf("start a lab of %d nodes: %w", l.Nodes, ErrNodes)
	}
	if len(l.Names) == 0 {
		l.Names = []string{"shop.test", "www.shop.test"}
		if l.Mixed {
			l.Names = append(l.Names, canaryName)
		}
	}
	if l.Poll == 0 {
		l.Poll = pollEvery
	}
	if l.Find == nil {
		l.Find = findProgram
	}
	if len(l.Pairs) == 0 {
		l.Pairs = []Pair{{Chain: DefaultPEM}}
	}
	dir, err := filepath.Abs(l.Dir) // real servers, and a store, are told where their files are
	if err != nil {
		return nil, fmt.Errorf("start the lab's machines: %w", err)
	}
	l.Dir = dir
	m := &Machines{Layout: l, KeyFile: filepath.Join(l.Dir, "controller", "id_ed25519")}
	if err := m.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the lab's machines: %w", err), m.Close())
	}
	return m, nil
}

func (m *Machines) start() error {
	key, err := newLogin(m.KeyFile)
	if err != nil {
		return err
	}
	if m.DNS, err = NewDNS(); err != nil {
		return err
	}
	for _, name := range m.Layout.Names {
		if err := m.DNS.Set(name, "127.0.0.1"); err != nil {
			return err
		}
	}
	if m.Layout.Mixed {
		err = m.startMixed(key)
	} else {
		err = m.startNodes(key)
	}
	if err != nil {
		return err
	}
	m.Balancer, err = NewBalancer(m.backends())
	return err
}

// backends are the nodes that are no proxies themselves.
func (m *Machines) backends() []Backend {
	var all []Backend
	for _, n := range m.Nodes {
		if len(n.c.backends) == 0 {
			all = append(all, n.Backend())
		}
	}
	return all
}

func (m *Machines) startNodes(key ssh.PublicKey) error {
	nodes := make([]*Node, m.Layout.Nodes)
	var all errgroup.Group
	for i := range nodes {
		name := "web" + strconv.Itoa(i+1)
		all.Go(func() (err error) {
			nodes[i], err = StartNode(NodeConfig{
				Name: name, Dir: nodeDir(m.Layout.Dir, name), Authorized: key, Pairs: m.Layout.Pairs,
				Placeholder: m.Layout.Placeholder, Workers: m.Layout.Workers,
				ReloadTime: m.Layout.ReloadTime, CutOver: m.Layout.CutOver, RTT: m.Layout.RTT,
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

// newLogin makes the controller's SSH key and writes it for its user alone.
func newLogin(file string) (ssh.PublicKey, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the controller's SSH key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "certfarm lab")
	if err != nil {
		return nil, fmt.Errorf("encode the controller's SSH key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("make a folder for the controller's SSH key: %w", err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
		return nil, fmt.Errorf("write the controller's SSH key: %w", err)
	}
	return ssh.NewPublicKey(public)
}

// Node returns the node of a name; see Part.
func (m *Machines) Node(name string) (*Node, error) {
	p, err := m.Part(name)
	if err != nil {
		return nil, err
	}
	n, ok := p.(*Node)
	if !ok {
		return nil, fmt.Errorf("%s is no node that the controller logs in to", name)
	}
	return n, nil
}

// Close ends all machines and waits for them.
func (m *Machines) Close() error {
	var errs []error
	if m.Balancer != nil {
		errs = append(errs, m.Balancer.Close())
	}
	var all errgroup.Group
	for _, p := range m.Parts() {
		all.Go(p.Close)
	}
	errs = append(errs, all.Wait())
	if m.share != nil {
		errs = append(errs, m.share.Close())
	}
	if m.DNS != nil {
		errs = append(errs, m.DNS.Close())
	}
	return errors.Join(errs...)
}
