package iis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/ccs"
	"github.com/certfarm/certfarm/internal/encode"
)

// Where the certificate lies.
const (
	Machine = "machine" // in a certificate store of the machine
	Central = "ccs"     // in a folder of the node that is its Centralized Certificate Store
)

// What is changed of IIS, in the words of tools that IIS users know.
const (
	Bindings  = ccs.Bindings  // the HTTPS bindings too
	StoreOnly = ccs.StoreOnly // the store, and no binding
	None      = ccs.None      // the files of a store that others have set up, and nothing of IIS
)

// Options are the options of the kind iis.
type Options struct {
	Store string   `json:"store" doc:"machine: the certificate store of the node; ccs: a folder of the node that is its own Centralized Certificate Store"`
	Mode  string   `json:"mode" doc:"bindings: HTTPS bindings are pointed to the new certificate; store-only: it lies in the store and no binding is touched; none (ccs only): nothing but the files"`
	Names []string `json:"names,omitempty" doc:"host names whose bindings are meant; empty: all names of the site"`
	ccs.Bound
	Certificates    string `json:"certificates" doc:"store machine: the store's name, My (Personal) or WebHosting"`
	Exportable      bool   `json:"exportable,omitempty" doc:"store machine: administrators may export the key"`
	Path            string `json:"path,omitempty" doc:"store ccs: the folder on the node, such as C:\\certs"`
	User            string `json:"user,omitempty" doc:"store ccs: the account under which IIS reads the folder, for a provider that is not enabled yet"`
	Readers         string `json:"readers" doc:"what Windows the node has: 2016 (and older) or 2019+; it decides the cipher of the PFX"`
	PollingInterval string `json:"polling_interval" doc:"store ccs: how often IIS looks for changes; set where the provider is enabled by Certfarm"`
}

// Defaults are the options of a node with a certificate store of its own.
func Defaults() Options {
	return Options{Store: Machine, Mode: Bindings, Certificates: "My", Readers: ccs.Readers2019, PollingInterval: "5m"}
}

// Facts checks the options; see deploy.Options. All targets in the machine's
// store are one reload group: IIS has one configuration, and what http.sys serves is
// compared as a whole.
func (o Options) Facts() (identity, group string, err error) {
	for _, check := range []func() error{o.checkWords, o.checkBindings, o.checkCentral} {
		if err := check(); err != nil {
			return "", "", err
		}
	}
	return o.Places()[0], o.group(), nil
}

// group is the reload group. A folder's is that of its store, since receipts of one
// group must serve in the hands of all its targets.
func (o Options) group() string {
	if o.Store == Machine {
		return "iis"
	}
	return "iis " + strings.ToLower(strings.ReplaceAll(o.Path, `\`, "/"))
}

// Places is deploy.Spread: the bindings that are meant, or the certificate that is
// the newest of its names in the store. Two targets with one in common would fight.
func (o Options) Places() []string {
	if o.Store == Central {
		return o.files().Places()
	}
	what := "iis binding "
	if o.Mode == StoreOnly {
		what = "iis certificate " + o.Certificates + " "
	}
	var all []string
	for _, site := range orAny(o.Sites) {
		for _, name := range orAny(o.Names) {
			for _, port := range orAny(o.portWords()) {
				all = append(all, strings.ToLower(what+name+":"+port+" of "+site))
			}
		}
	}
	return all
}

// orAny is a list, or what stands for all.
func orAny(list []string) []string {
	if len(list) == 0 {
		return []string{"*"}
	}
	return list
}

func (o Options) portWords() []string {
	var all []string
	for _, p := range o.Ports {
		all = append(all, strconv.Itoa(p))
	}
	return all
}

// files are the options of the node's folder as a certificate store.
func (o Options) files() ccs.Options {
	f := ccs.Defaults()
	f.Path, f.Names, f.Readers, f.PollingInterval = o.Path, o.Names, o.Readers, o.PollingInterval
	return f
}

// cipher is what the node's Windows can read.
func (o Options) cipher() encode.PFXCipher {
	if o.Readers == ccs.Readers2016 {
		return encode.PFXLegacy
	}
	return encode.PFXModern
}

// interval is the polling interval in seconds.
func (o Options) interval() int {
	d, err := time.ParseDuration(o.PollingInterval)
	if err != nil {
		return 0 // Facts has refused it
	}
	return int(d / time.Second)
}

func (o Options) checkWords() error {
	wrong := func(field, got, hint string) error {
		return &deploy.FieldError{Field: field, Problem: fmt.Sprintf("%q is not one that there is", got), Hint: hint}
	}
	switch {
	case o.Store != Machine && o.Store != Central:
		return wrong("store", o.Store, "store: machine, or store: ccs")
	case !slices.Contains([]string{Bindings, StoreOnly, None}, o.Mode):
		return wrong("mode", o.Mode, "mode: bindings, store-only or none")
	case o.Store == Machine && o.Mode == None:
		return &deploy.FieldError{Field: "mode", Problem: "with `none` there is nothing to do in the machine's store", Hint: "mode: store-only, or the kind pfx for a file"}
	case !strings.EqualFold(o.Certificates, "My") && !strings.EqualFold(o.Certificates, "WebHosting"):
		return wrong("certificates", o.Certificates, "certificates: My, or certificates: WebHosting")
	case o.Readers != ccs.Readers2016 && o.Readers != ccs.Readers2019:
		return wrong("readers", o.Readers, `readers: "2016", or readers: "2019+"`)
	}
	return nil
}

func (o Options) checkBindings() error {
	for i, name := range o.Names {
		if name == "" || strings.ContainsAny(name, " '\"/:") {
			return &deploy.FieldError{Field: fmt.Sprintf("names[%d]", i), Problem: fmt.Sprintf("%q is no host name", name), Hint: "names: [www.example.com]"}
		}
	}
	return o.Check(o.Mode)
}

func (o Options) checkCentral() error {
	if o.Store == Machine {
		if o.Path != "" || o.User != "" {
			return &deploy.FieldError{Field: "path", Problem: "the machine's store has no folder and no account", Hint: "store: ccs"}
		}
		return nil
	}
	if strings.HasPrefix(strings.ReplaceAll(o.Path, `\`, "/"), "//") {
		return &deploy.FieldError{Field: "path", Problem: "a share is read by several nodes, and this target is one node's", Hint: "the kind ccs writes to shares, and with mode: bindings it changes the servers that read them; here a folder of the node: path: C:\\certs"}
	}
	if o.Path == "" {
		return &deploy.FieldError{Field: "path", Problem: "the folder of the store is missing", Hint: `path: C:\certs`}
	}
	_, _, err := o.files().Facts()
	return err
}
