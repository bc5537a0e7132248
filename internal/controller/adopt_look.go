package controller

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/adopt"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/probe"
)

// looking is one look at a node.
type looking struct {
	ask    AdoptAsk
	node   farm.Node
	host   host.Host
	prober probe.Prober
	certs  map[string]certFile // what was read, by path
	notes  []string
}

type certFile struct {
	data []byte
	err  error
}

// servers are those that run, or the one that was named.
func (l *looking) servers(ctx context.Context) ([]adopt.Server, error) {
	if l.ask.Config != "" {
		return []adopt.Server{{Kind: l.ask.Server, Config: l.ask.Config}}, nil
	}
	var said []byte
	var err error
	for _, argv := range adopt.Processes(l.node.Shell) {
		if said, err = l.host.Run(ctx, argv, nil); err == nil {
			break
		}
		if exit, ran := errors.AsType[*host.ExitError](err); ran && exit.Status == 1 && len(strings.TrimSpace(string(exit.Output))) == 0 {
			err = nil // ps found none of them
			break
		}
		if errors.Is(err, host.ErrUnreachable) {
			return nil, err
		}
	}
	if err != nil {
		return nil, &Refusal{"the processes of " + l.node.Name + " could not be listed: " + err.Error(), "name a server with --server, and its configuration with --config"}
	}
	all, notes := adopt.Running(string(said), l.me(ctx))
	l.notes = append(l.notes, notes...)
	if l.ask.Server != "" {
		all = slices.DeleteFunc(all, func(s adopt.Server) bool { return s.Kind != l.ask.Server })
		if len(all) == 0 {
			all = []adopt.Server{{Kind: l.ask.Server}}
		}
	}
	return all, nil
}

// me is who is logged in on the node; empty where that is not told.
func (l *looking) me(ctx context.Context) string {
	if l.node.SSH != nil {
		return l.node.SSH.User
	}
	out, err := l.host.Run(ctx, []string{"id", "-un"}, nil)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// unit is the systemd unit of a server that has its default configuration; empty
// where there is none that is active.
func (l *looking) unit(ctx context.Context, s adopt.Server) string {
	for _, unit := range s.Units() {
		if _, err := l.host.Run(ctx, []string{"systemctl", "is-active", "--quiet", unit}, nil); err == nil {
			return unit
		}
	}
	return ""
}

// read reads a server's configuration, as far as it may be read.
func (l *looking) read(ctx context.Context, s *adopt.Server) adopt.Found {
	said := map[string]string{}
	for name, argv := range s.Questions() {
		out, err := l.host.Run(ctx, argv, nil)
		if err == nil && len(out) < host.MaxOutput { // it is the end that is kept
			said[name] = string(out)
		}
	}
	tree, problem := s.Tree(said)
	if problem != "" {
		return adopt.Found{Notes: []string{problem}}
	}
	tree.Globs, tree.Failed = map[string][]string{}, map[string]string{}
	if tree.Texts == nil {
		tree.Texts = map[string]string{}
	}
	parse := adopt.Parsers()[s.Kind]
	for {
		found := parse(tree)
		if len(found.Wants)+len(found.Reads) == 0 || ctx.Err() != nil {
			return found
		}
		for _, pattern := range found.Wants {
			tree.Globs[pattern] = l.glob(ctx, pattern, 0)
		}
		for _, name := range found.Reads {
			data, err := l.host.Read(ctx, name)
			if err != nil {
				tree.Failed[name] = err.Error()
				continue
			}
			tree.Texts[name] = string(data)
		}
	}
}

// The bounds of what a pattern may stand for.
const (
	globDepth = 10
	globFiles = 20000
)

// glob is the files that a pattern stands for: those below it where it is a folder.
func (l *looking) glob(ctx context.Context, pattern string, depth int) []string {
	if depth > globDepth {
		return []string{}
	}
	if !strings.ContainsAny(pattern, "*?[") {
		return l.under(ctx, pattern, depth)
	}
	all := []string{}
	folder, base := path.Split(pattern)
	folders := []string{path.Clean(folder)}
	if strings.ContainsAny(folder, "*?[") {
		folders = l.matching(ctx, path.Clean(folder), depth+1)
	}
	for _, f := range folders {
		entries, _ := l.host.List(ctx, f) // what may not be seen is not there
		for _, e := range entries {
			if ok, err := path.Match(base, e.Name); err == nil && ok && len(all) < globFiles {
				all = append(all, l.under(ctx, path.Join(f, e.Name), depth+1)...)
			}
		}
	}
	return all
}

// matching is the folders that a pattern stands for.
func (l *looking) matching(ctx context.Context, pattern string, depth int) (all []string) {
	if !strings.ContainsAny(pattern, "*?[") || depth > globDepth {
		return []string{pattern}
	}
	folder, base := path.Split(pattern)
	for _, f := range l.matching(ctx, path.Clean(folder), depth+1) {
		entries, _ := l.host.List(ctx, f) // what may not be seen is not there
		for _, e := range entries {
			if ok, err := path.Match(base, e.Name); err == nil && ok && e.Mode.IsDir() {
				all = append(all, path.Join(f, e.Name))
			}
		}
	}
	return all
}

// under is a file itself, or all files of a folder.
func (l *looking) under(ctx context.Context, name string, depth int) []string {
	all := []string{}
	entries, err := l.host.List(ctx, name)
	if err != nil {
		if _, err := l.host.Read(ctx, name); errors.Is(err, fs.ErrNotExist) {
			return all
		}
		return []string{name}
	}
	for _, e := range entries {
		inner := path.Join(name, e.Name)
		switch {
		case len(all) >= globFiles:
		case !e.Mode.IsDir():
			all = append(all, inner)
		case depth < globDepth:
			all = append(all, l.under(ctx, inner, depth+1)...)
		}
	}
	return all
}

// file reads a file once.
func (l *looking) file(ctx context.Context, name string) ([]byte, error) {
	f, known := l.certs[name]
	if !known {
		f.data, f.err = l.host.Read(ctx, name)
		l.certs[name] = f
	}
	return f.data, f.err
}

// finding reads a place's certificates.
func (l *looking) finding(ctx context.Context, p adopt.Place) adopt.Spot {
	f := adopt.Spot{Place: p}
	for _, pair := range p.Pairs {
		f.Leaves = append(f.Leaves, l.leaf(ctx, pair))
	}
	return f
}

func (l *looking) leaf(ctx context.Context, pair adopt.Files) adopt.FileLeaf {
	leaf := adopt.FileLeaf{Files: pair}
	if pair.Store != "" {
		return leaf
	}
	text, err := l.file(ctx, pair.Chain)
	if err != nil {
		leaf.Problem = "it could not be read: " + err.Error()
		return leaf
	}
	facts, err := encode.Facts(text)
	if err != nil {
		leaf.Problem = err.Error()
		return leaf
	}
	cert, err := encode.Leaf(text)
	if err != nil {
		leaf.Problem = err.Error()
		return leaf
	}
	leaf.Fingerprint, leaf.KeyType, leaf.NotAfter = facts.Fingerprint, facts.KeyType, cert.NotAfter
	leaf.Names = cert.DNSNames
	for _, ip := range cert.IPAddresses {
		leaf.Names = append(leaf.Names, ip.String())
	}
	leaf.Issuer = cert.Issuer.CommonName
	leaf.SelfSigned = cert.CheckSignatureFrom(cert) == nil || cert.Issuer.String() == cert.Subject.String()
	l.key(ctx, &leaf, text)
	l.manager(ctx, &leaf)
	return leaf
}

// key says whether the key belongs to the certificate. The key is not kept.
func (l *looking) key(ctx context.Context, leaf *adopt.FileLeaf, chain []byte) {
	leaf.Fit = adopt.Unknown
	key, err := l.file(ctx, leaf.Key)
	if err == nil {
		_, err = encode.Pair(chain, key)
	}
	switch {
	case err == nil:
		leaf.Fit = adopt.Fits
	case errors.Is(err, encode.ErrMismatch):
		leaf.Fit = adopt.Differs
	default:
		leaf.KeyProblem = err.Error()
	}
}

// manager says who renews the certificate.
func (l *looking) manager(ctx context.Context, leaf *adopt.FileLeaf) {
	link := ""
	if links, can := l.host.(host.Linker); can {
		link, _ = links.Readlink(ctx, leaf.Chain) // most are no links
	}
	leaf.Manager = adopt.Manager(leaf.Chain, link)
	if lineage := adopt.Lineage(leaf.Chain, link); lineage != "" {
		conf := "/etc/letsencrypt/renewal/" + lineage + ".conf"
		if _, err := l.host.Read(ctx, conf); err == nil {
			leaf.Manager += " (" + conf + ")"
		}
	}
}
