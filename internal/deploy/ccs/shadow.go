package ccs

import (
	"cmp"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// Shadow is deploy.Shadowed: files of names that nobody asks for, in the store
// itself, so with the rights that count there. Apart, it is a store of its own in a
// folder of the live one; IIS reads the files of the first level alone.
func (o Options) Shadow(t deploy.Trial) (deploy.Shadow, error) {
	s := deploy.Shadow{
		Bare:  true,
		Files: func(s deploy.Setup) (deploy.Folder, error) { return o.Files(s.Secrets[AccountPassword]) },
		Unpack: func(s deploy.Setup, data []byte) (chain, key []byte, err error) {
			b, err := encode.OpenPFX(data, s.Secrets[StorePassword])
			return b.Chain, b.Key.Reveal(), err
		},
		Pack: func(s deploy.Setup, b farm.Bundle) ([]byte, error) {
			return encode.PFX(b, encode.PFXOptions{Password: s.Secrets[StorePassword], Cipher: o.cipher()})
		},
		Untried: []deploy.Untried{{What: "whether IIS serves from the store", Why: "no site has a binding for the names of a trial; `canary` proves it at each rollout"}},
	}
	at := o
	at.Names, at.Canary = t.Names, ""
	if o.Mode != None {
		at.Mode, at.Bound, at.Location, at.Account = None, Bound{}, "", ""
		s.Untried = append(s.Untried, deploy.Untried{What: "provider and bindings of the IIS servers", Why: "each has one provider, and it is live"})
	}
	if t.Apart {
		base := join(o.Share+o.Path, "."+t.Mark)
		folder := join(base, cmp.Or(t.Place, "certs"))
		if o.Share != "" {
			base, folder = strings.ReplaceAll(base, "/", `\`), strings.ReplaceAll(folder, "/", `\`)
			at.Share = folder
		} else {
			at.Path = folder
		}
		if at.Staging != Defaults().Staging {
			s.Untried = append(s.Untried, deploy.Untried{What: "staging in " + o.Staging, Why: "it is shared with what is live"})
			at.Staging = Defaults().Staging
		}
		s.Own = []string{join(o.root(), "."+t.Mark)}
		s.Make = []string{s.Own[0], at.root()}
		s.Touches = []string{"folder " + base}
	}
	files, err := filesOf(t.Names)
	if err != nil {
		return deploy.Shadow{}, err
	}
	for _, f := range files {
		live := join(at.root(), f)
		s.Live = append(s.Live, [2]string{live, live})
		if !t.Apart {
			s.Own = append(s.Own, live)
			s.Touches = append(s.Touches, "file "+o.Share+o.Path+" "+f)
		}
	}
	if !t.Apart {
		s.Touches = append(s.Touches, "a folder for them in "+o.Staging)
	}
	s.Options = at
	return s, nil
}
