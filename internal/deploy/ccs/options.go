package ccs

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/smb"
)

// What the readers of a store are: it decides the cipher of the PFX files.
const (
	Readers2016 = "2016"  // Windows Server 2016 or older is among them: 3DES-SHA1
	Readers2019 = "2019+" // all are newer: AES-256
)

// What readers may take beyond their polling interval: to read, to load, to be
// asked. Those that poll every second are not waited for half a minute.
const (
	leastMargin = 5 * time.Second
	mostMargin  = 30 * time.Second
)

// maxInterval is the longest polling interval that is believed.
const maxInterval = 24 * time.Hour

// Options are the options of the kind ccs.
type Options struct {
	Share           string   `json:"share,omitempty" doc:"folder of a share with the store, reached over SMB 3, such as \\\\files\\certs"`
	Path            string   `json:"path,omitempty" doc:"folder with the store as the controller's own system reaches it: C:\\certs, or on Windows a share under the service's account"`
	Staging         string   `json:"staging" doc:"folder for what is staged and kept: a name inside the store, or a path beside it with the same rights for the readers"`
	User            string   `json:"user,omitempty" doc:"account that writes to the share; it needs Modify on the store and nothing else"`
	Domain          string   `json:"domain,omitempty" doc:"domain of the account; empty: an account of the file server"`
	Port            int      `json:"port,omitempty" doc:"port of the file server, if it is not 445"`
	Names           []string `json:"names,omitempty" doc:"names that get a file; empty: all names of the site"`
	Canary          string   `json:"canary,omitempty" doc:"a name that the certificate covers, that IIS has a binding for and that no client asks for: its file is written first, and the others when every reader serves it"`
	Readers         string   `json:"readers" doc:"the oldest Windows that reads the store: 2016 (and older) or 2019+"`
	PollingInterval string   `json:"polling_interval" doc:"how often the readers look for changes, as their PollingInterval says, such as 5m"`
	Mode            string   `json:"mode" doc:"what is changed of the IIS servers under on, over their SSH lines. bindings: they are told to read the store, and their HTTPS bindings take the certificate from it; store-only: they are told to read it; none: nothing"`
	Bound
	Location string `json:"location,omitempty" doc:"mode bindings or store-only: the store as the servers reach it, if that is not share or path: a DFS path, say"`
	Account  string `json:"account,omitempty" doc:"mode bindings or store-only: the account under which IIS reads the store, for servers that were not told yet"`
}

// Defaults are the options of a store as IIS comes.
func Defaults() Options {
	return Options{Staging: ".certfarm", Readers: Readers2019, PollingInterval: "5m", Mode: None}
}

// Facts checks the options; see deploy.Options. Targets on one store are one
// reload group: they go live together.
func (o Options) Facts() (identity, group string, err error) {
	for _, check := range []func() error{o.checkPlace, o.checkStaging, o.checkNames, o.checkReaders, o.checkMode} {
		if err := check(); err != nil {
			return "", "", err
		}
	}
	return o.Places()[0], "ccs " + o.place(), nil
}

// Places is deploy.Spread: the files in the root. Two targets with one in common
// would write over each other.
func (o Options) Places() []string {
	files, err := filesOf(o.Names)
	if err != nil {
		return []string{"ccs " + o.place()}
	}
	if canary, err := fileNames(o.Canary); err == nil && o.Canary != "" {
		files = append(files, canary...)
	}
	for i, f := range files {
		files[i] = "ccs " + join(o.place(), f)
	}
	return files
}

// place is the root as people know it, in the one spelling that is compared:
// Windows does not tell cases apart.
func (o Options) place() string {
	return strings.ToLower(strings.ReplaceAll(o.Share+o.Path, `\`, "/"))
}

// UNC is the share; false where the store is reached through the system.
func (o Options) UNC() (smb.UNC, bool) {
	u, err := smb.ParseUNC(o.Share)
	return u, err == nil
}

// root is the folder that IIS reads, as host.Files names it.
func (o Options) root() string {
	if u, ok := o.UNC(); ok {
		return u.Folder
	}
	return slashed(o.Path)
}

// staging is the folder for what is staged and kept, as host.Files names it.
func (o Options) staging() string {
	switch u, err := smb.ParseUNC(o.Staging); {
	case !strings.ContainsAny(o.Staging, `/\`):
		return join(o.root(), o.Staging)
	case o.Share != "" && err == nil:
		return u.Folder
	}
	return slashed(o.Staging)
}

// slashed is a path with forward slashes and without one at the end.
func slashed(name string) string {
	return strings.TrimSuffix(strings.ReplaceAll(name, `\`, "/"), "/")
}

// lag is how long readers may serve the old certificate after a switch.
func (o Options) lag() time.Duration {
	d, err := time.ParseDuration(o.PollingInterval)
	if err != nil {
		return 0 // Facts has refused it
	}
	return d
}

// patience is how long the readers are asked for the canary.
func (o Options) patience() time.Duration {
	return o.lag() + min(max(o.lag(), leastMargin), mostMargin)
}

// cipher is what all readers can read.
func (o Options) cipher() encode.PFXCipher {
	if o.Readers == Readers2016 {
		return encode.PFXLegacy
	}
	return encode.PFXModern
}

func (o Options) checkPlace() error {
	switch {
	case (o.Share == "") == (o.Path == ""):
		return &deploy.FieldError{Field: "share", Problem: "a store is either a `share` or a `path`", Hint: `share: \\files\certs, or path: C:\certs`}
	case o.Share != "":
		if _, err := smb.ParseUNC(o.Share); err != nil {
			return &deploy.FieldError{Field: "share", Problem: err.Error(), Hint: `share: \\files\certs`}
		}
		if o.User == "" {
			return &deploy.FieldError{Field: "user", Problem: "no account is named that writes to the share", Hint: "an account of its own with Modify on the store; on Windows `path` uses the service's own"}
		}
	case !absolute(slashed(o.Path)):
		return &deploy.FieldError{Field: "path", Problem: fmt.Sprintf("%q is not absolute, or has parts such as ..", o.Path), Hint: `path: C:\certs`}
	case o.User != "" || o.Domain != "" || o.Port != 0:
		return &deploy.FieldError{Field: "user", Problem: "a `path` is reached under the controller's own account", Hint: "leave user, domain and port out, or name a share"}
	}
	if o.Port < 0 || o.Port > 65535 {
		return &deploy.FieldError{Field: "port", Problem: fmt.Sprintf("%d is no port", o.Port), Hint: "leave it out for 445"}
	}
	return nil
}

// absolute says whether a path with forward slashes begins at a root and has no
// part that leads elsewhere.
func absolute(name string) bool {
	rest := strings.TrimPrefix(name, "/")
	if drive, after, ok := strings.Cut(name, ":/"); ok && len(drive) == 1 && unicode.IsLetter(rune(drive[0])) {
		rest = "/" + after
		name = rest
	}
	if !strings.HasPrefix(name, "/") || strings.ContainsFunc(name, unicode.IsControl) {
		return false
	}
	return rest == "" || path.Clean("/"+rest) == "/"+strings.TrimPrefix(rest, "/")
}

func (o Options) checkStaging() error {
	wrong := &deploy.FieldError{Field: "staging", Problem: fmt.Sprintf("%q is neither the name of a folder in the store nor a path beside it", o.Staging), Hint: `staging: .certfarm, or a path of the same share: \\files\certs-staging`}
	if !strings.ContainsAny(o.Staging, `/\`) {
		if o.Staging == "" || strings.Trim(o.Staging, ". ") == "" || strings.ContainsAny(o.Staging, `:*?"<>|`) || isFileName(o.Staging) {
			return wrong
		}
		return nil
	}
	if u, ok := o.UNC(); ok {
		s, err := smb.ParseUNC(o.Staging)
		if err != nil || !strings.EqualFold(s.Server, u.Server) || !strings.EqualFold(s.Share, u.Share) {
			return wrong // a rename works within one share only
		}
	} else if !absolute(slashed(o.Staging)) {
		return wrong
	}
	if strings.EqualFold(o.staging(), o.root()) {
		return &deploy.FieldError{Field: "staging", Problem: "it is the store itself", Hint: "staging: .certfarm"}
	}
	return nil
}

func (o Options) checkNames() error {
	for i, name := range o.Names {
		if _, err := fileNames(name); err != nil {
			return &deploy.FieldError{Field: fmt.Sprintf("names[%d]", i), Problem: err.Error(), Hint: "names: [www.example.com, '*.example.com']"}
		}
	}
	if o.Canary == "" {
		return nil
	}
	files, err := fileNames(o.Canary)
	if err != nil || strings.HasPrefix(o.Canary, "*") {
		return &deploy.FieldError{Field: "canary", Problem: fmt.Sprintf("%q is not an exact name", o.Canary), Hint: "a name that the certificate covers and IIS has a binding for: canary: certfarm-canary.example.com"}
	}
	if live, err := filesOf(o.Names); err == nil && overlap(live, files) {
		return &deploy.FieldError{Field: "canary", Problem: o.Canary + " is a live name", Hint: "a name of its own, that no client asks for; if the site must have it among its names, list the others in the option names"}
	}
	return nil
}

func (o Options) checkReaders() error {
	if o.Readers != Readers2016 && o.Readers != Readers2019 {
		return &deploy.FieldError{Field: "readers", Problem: fmt.Sprintf("%q is not one of %s and %s", o.Readers, Readers2016, Readers2019), Hint: "the oldest one that reads the store decides: readers: " + Readers2019}
	}
	if d, err := time.ParseDuration(o.PollingInterval); err != nil || d < 0 || d > maxInterval {
		return &deploy.FieldError{Field: "polling_interval", Problem: fmt.Sprintf("%q is no time up to %s", o.PollingInterval, maxInterval), Hint: "polling_interval: 5m (Get-WebCentralCertProvider shows it)"}
	}
	return nil
}

// oneKey says that a store cannot hold a version with more leaves than one.
func oneKey(bundles []farm.Bundle) error {
	var kinds []string
	for _, b := range bundles {
		kinds = append(kinds, string(b.KeyType))
	}
	return &deploy.FieldError{
		Field:   "keys",
		Problem: fmt.Sprintf("a certificate store holds one PFX file for each name, so one key type, and the site has %d: %s", len(bundles), strings.Join(kinds, ", ")),
		Hint:    "give the site one key type, or the IIS nodes a site of their own",
	}
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(x string) bool { return slices.Contains(b, x) })
}
