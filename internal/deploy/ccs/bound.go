package ccs

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/host/smb"
)

// What is changed of IIS, in the words of tools that IIS users know.
const (
	Bindings  = "bindings"   // the HTTPS bindings too
	StoreOnly = "store-only" // the store and the setting that IIS reads it, and no binding
	None      = "none"       // the store, and nothing of IIS
)

// Bound says which HTTPS bindings of IIS are meant, beside those of the names.
type Bound struct {
	Sites  []string `json:"sites,omitempty" doc:"sites of IIS whose bindings are meant; empty: all. Bindings without a host name are meant only if their site stands here"`
	Ports  []int    `json:"ports,omitempty" doc:"ports of the bindings; empty: all, and 443 for those that are made"`
	Create bool     `json:"create,omitempty" doc:"make a binding (all addresses, SNI) for each name that has none; sites must name one site"`
}

// Check finds mistakes, for a target of a mode.
func (b Bound) Check(mode string) error {
	for i, site := range b.Sites {
		if site == "" || strings.ContainsAny(site, `*?[]"'`) {
			return &deploy.FieldError{Field: fmt.Sprintf("sites[%d]", i), Problem: fmt.Sprintf("%q is no name of a site", site), Hint: "sites: [Default Web Site], as IIS Manager shows it"}
		}
	}
	for i, p := range b.Ports {
		if p < 1 || p > 65535 {
			return &deploy.FieldError{Field: fmt.Sprintf("ports[%d]", i), Problem: fmt.Sprintf("%d is no port", p), Hint: "ports: [443]"}
		}
	}
	switch {
	case mode != Bindings && b.Create:
		return &deploy.FieldError{Field: "create", Problem: "with mode " + mode + " no binding is made", Hint: "mode: bindings"}
	case b.Create && len(b.Sites) != 1:
		return &deploy.FieldError{Field: "create", Problem: "it is not known which site of IIS the bindings are for", Hint: "sites: [Default Web Site]"}
	}
	return nil
}

// At is the store as the servers that read it are told: the location, or the share,
// or the path.
func (o Options) At() string {
	return strings.ReplaceAll(cmp.Or(o.Location, o.Share, o.Path), "/", `\`)
}

// OnReaders is deploy.Reacher's.
func (o Options) OnReaders() bool { return o.Mode != None }

// checkMode looks at what is to be changed of the servers that read the store.
func (o Options) checkMode() error {
	switch o.Mode {
	case Bindings, StoreOnly:
	case None:
		if o.Account != "" || o.Location != "" {
			return &deploy.FieldError{Field: "mode", Problem: "with `none` nothing of IIS is changed, and no setting of it is needed", Hint: "mode: bindings or store-only; or leave account and location out"}
		}
	default:
		return &deploy.FieldError{Field: "mode", Problem: fmt.Sprintf("%q is not one that there is", o.Mode), Hint: "mode: bindings, store-only or none"}
	}
	if err := o.Check(o.Mode); err != nil || o.Mode == None {
		return err
	}
	local := slashed(o.Location) // each server has a share of its own, and reads it as its folder
	if _, err := smb.ParseUNC(o.At()); err != nil && !(strings.Contains(local, ":/") && absolute(local)) {
		return &deploy.FieldError{Field: "location", Problem: fmt.Sprintf("%q is no share, and the servers that read the store reach it as one", o.At()), Hint: `location: \\files\certs`}
	}
	return nil
}
