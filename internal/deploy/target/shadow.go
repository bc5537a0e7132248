package target

import (
	"path"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// The shadow place of files lies in a folder whose name begins with a dot, inside
// the folder of the live file: the same rights, and no server that reads all files
// of a folder looks into it. The store has one as well. The config test runs as for
// live files; what makes the server read anew does not, unless the trial lets it.

// beside is the shadow path of a live one.
func beside(live string, t deploy.Trial) string {
	base := path.Base(live)
	if t.Place != "" {
		base = t.Place + "-" + base
	}
	return path.Join(hidden(path.Dir(live), t), base)
}

func hidden(folder string, t deploy.Trial) string { return path.Join(folder, "."+t.Mark) }

// shadow gives the upkeep of a shadow place beside a live file, and what it does not
// show. The contract looks for copies where live paths lead; on Windows they lead
// nowhere, and the store of its trials is beside the files.
func (o upkeep) shadow(t deploy.Trial, live string) (upkeep, []deploy.Untried) {
	var untried []deploy.Untried
	skip := func(what string, argv []string, why string) {
		if len(argv) > 0 {
			untried = append(untried, deploy.Untried{What: what + " (" + strings.Join(argv, " ") + ")", Why: why})
		}
	}
	if !t.Reload {
		skip("reload", o.Reload, "it would touch the running server; --reload runs it, on an unchanged configuration")
		o.Reload = nil
	}
	skip("start", o.Start, "the server is not stopped for a trial")
	o.Start, o.Store = nil, hidden(o.Store, t)
	if t.Apart && onWindows(live) {
		o.Store = path.Join(hidden(path.Dir(live), t), "store")
	}
	return o, untried
}

// shadowOf is the shadow of files at some places.
func shadowOf(t deploy.Trial, o deploy.Options, u upkeep, live []place, untried []deploy.Untried) deploy.Shadow {
	s := deploy.Shadow{Options: o, Untried: untried, Test: u.Test}
	for _, p := range live {
		pair := [2]string{p.Files[0].Live, p.Files[len(p.Files)-1].Live}
		s.Live = append(s.Live, pair)
		for _, name := range pair {
			if folder := path.Dir(name); !slices.Contains(s.Own, folder) {
				s.Own = append(s.Own, folder)
			}
		}
	}
	s.Own = append(s.Own, u.Store)
	if onWindows(u.Store) { // there the engine makes no folders, since their rights are people's to give
		s.Make = slices.Clone(s.Own)
	}
	for _, folder := range s.Own {
		s.Touches = append(s.Touches, "folder "+folder+" on the node")
	}
	for what, argv := range map[string][]string{"config test: ": u.Test, "reload: ": u.Reload} {
		if len(argv) > 0 {
			s.Touches = append(s.Touches, what+strings.Join(argv, " "))
		}
	}
	slices.Sort(s.Touches)
	return s
}

// shadow gives the options of a shadow place for servers that read PEM files.
func (o options) shadow(t deploy.Trial) (options, []deploy.Untried) {
	var untried []deploy.Untried
	live := o.places()[0].Files[0].Live
	o.pair = o.pair.shadow(t)
	more := o.More
	o.More = nil
	for _, p := range more {
		if !t.Apart {
			o.More = append(o.More, typed{p.Keys, p.pair.shadow(t)})
		}
	}
	o.upkeep, untried = o.upkeep.shadow(t, live)
	return o, untried
}

func (p pair) shadow(t deploy.Trial) pair {
	for _, name := range []*string{&p.PEM, &p.Chain, &p.Key} {
		if *name != "" {
			*name = beside(*name, t)
		}
	}
	return p
}

// leaves are key types that fit the places: the first takes what no other does.
func (o options) leaves() []farm.KeyType {
	var all []farm.KeyType
	for _, p := range o.More {
		all = append(all, p.Keys)
	}
	for _, k := range []farm.KeyType{farm.EC256, farm.RSA2048} {
		if !slices.Contains(all, k) {
			return append([]farm.KeyType{k}, all...)
		}
	}
	return append([]farm.KeyType{farm.EC384}, all...)
}

func (o options) shadowed(t deploy.Trial, wrap func(options) deploy.Options) (deploy.Shadow, error) {
	at, untried := o.shadow(t)
	s := shadowOf(t, wrap(at), at.upkeep, at.places(), untried)
	s.Leaves = at.leaves()
	return s, nil
}

// Shadow is deploy.Shadowed.
func (o nginx) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return o.shadowed(t, func(at options) deploy.Options { return nginx{at} })
}

// Shadow is deploy.Shadowed.
func (o apache) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return o.shadowed(t, func(at options) deploy.Options { return apache{at} })
}

// Shadow is deploy.Shadowed.
func (o lighttpd) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return o.shadowed(t, func(at options) deploy.Options { return lighttpd{at} })
}

// Shadow is deploy.Shadowed.
func (o files) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return o.shadowed(t, func(at options) deploy.Options { return files{at} })
}

// Shadow is deploy.Shadowed: the files alone, since what is set over the admin
// socket is served.
func (o haproxy) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	s, err := o.shadowed(t, func(at options) deploy.Options { return files{at} })
	s.Kind = "files"
	s.Untried = append(s.Untried, deploy.Untried{What: "the runtime API at " + o.Socket, Why: "what is set there is served"})
	return s, err
}

// shadowed is the shadow of a kind with one file. The password opens it.
func shadowed(t deploy.Trial, u upkeep, at string, p part, f format, wrap func(string, upkeep) deploy.Options) deploy.Shadow {
	live := beside(at, t)
	u, untried := u.shadow(t, at)
	places := one(live, p)
	s := shadowOf(t, wrap(live, u), u, places, untried)
	s.Unpack = func(setup deploy.Setup, data []byte) (chain, key []byte, err error) {
		f.Password = setup.Secrets[password]
		return f.pair(content{places[0].Files[0].Name: data}, places[0])
	}
	s.Pack = func(setup deploy.Setup, b farm.Bundle) ([]byte, error) {
		f.Password = setup.Secrets[password]
		return f.text(p, b)
	}
	return s
}

// Shadow is deploy.Shadowed.
func (o pfx) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return shadowed(t, o.upkeep, o.Path, pkcs12, format{Cipher: o.Cipher}, func(at string, u upkeep) deploy.Options {
		o.Path, o.upkeep = at, u
		return o
	}), nil
}

// Shadow is deploy.Shadowed.
func (o jks) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	return shadowed(t, o.upkeep, o.Path, javaStore, format{Alias: o.Alias}, func(at string, u upkeep) deploy.Options {
		o.Path, o.upkeep = at, u
		return o
	}), nil
}

// Shadow is deploy.Shadowed: the key store alone, since the manager reads the live
// one anew.
func (o tomcat) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	s := shadowed(t, o.upkeep, o.Path, pkcs12, format{Cipher: encode.PFXModern}, func(at string, u upkeep) deploy.Options {
		return pfx{keystorePath: keystorePath{at}, Cipher: encode.PFXModern, upkeep: u}
	})
	s.Kind = "pfx"
	if o.Manager != "" {
		s.Untried = append(s.Untried, deploy.Untried{What: "sslReload by the manager at " + o.Manager, Why: "it reads the live key store"})
	}
	return s, nil
}

// Shadow is deploy.Shadowed.
func (o envoy) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	secret := o.secret()
	s := shadowed(t, o.upkeep, o.Path, sdsSecret, format{Secret: secret}, func(at string, u upkeep) deploy.Options {
		o.Path, o.Secret, o.upkeep = at, secret, u
		return o
	})
	s.Untried = append(s.Untried, deploy.Untried{What: "whether Envoy sees the change", Why: "it watches the live file"})
	return s, nil
}
