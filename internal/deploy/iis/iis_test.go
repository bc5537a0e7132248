package iis

import (
	"context"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var private = host.Attr{Mode: 0o755}

func secret() farm.Secret { return farm.NewSecret([]byte("Store-password-1")) }

// options are those of a test, after edit.
func options(t *testing.T, edit func(*Options)) Options {
	t.Helper()
	o := Defaults()
	o.Names = deploytest.Names
	if edit != nil {
		edit(&o)
	}
	_, _, err := o.Facts()
	must(t, err)
	return o
}

// person binds a certificate as IIS Manager does.
func (w *windows) person(names []string, b farm.Bundle) {
	w.mu.Lock()
	defer w.mu.Unlock()
	thumb := w.add("My", b)
	for _, name := range names {
		w.bind(name+":443", thumb, "My")
	}
}

// known spares the node the opening of each PFX, which is slow by design: it has the
// bundle already. TestOldCertificates and others open them.
type known struct {
	deploy.Deployer
	node *windows
}

func (k known) Stage(ctx context.Context, s deploy.Stage) (deploy.Receipt, error) {
	k.node.mu.Lock()
	k.node.coming = s.Bundles
	k.node.mu.Unlock()
	return k.Deployer.Stage(ctx, s)
}

// cutElsewhere skips cuts that another bench makes.
func cutElsewhere(t *testing.T, where string) {
	t.Helper()
	if strings.Contains(t.Name(), "cut_anywhere") {
		t.Skip("not for this store, cut in " + where)
	}
}

func TestContractOfBindings(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		w := newWindows(deploytest.Names...)
		b := machineBench(t, w, nil)
		b.Empty = func(deploytest.T) { w.reset(deploytest.Names...) }
		b.Plain = func(_ deploytest.T, _ deploytest.Target, b farm.Bundle) { w.person(deploytest.Names, b) }
		return b
	})
}

func TestContractOfMadeBindings(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		w := newWindows("www.example.org")
		w.german = true
		b := machineBench(t, w, func(o *Options) { o.Sites, o.Create, o.Certificates = []string{"Shop"}, true, "WebHosting" })
		b.Empty = func(deploytest.T) { w.reset("www.example.org") }
		b.Stride = 3 // TestContractOfBindings cuts after every call
		return b
	})
}

func TestContractOfStoreOnly(t *testing.T) {
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		cutElsewhere(t, "TestContractOfBindings: the calls are the same")
		w := newWindows(deploytest.Names...)
		b := machineBench(t, w, func(o *Options) { o.Mode = StoreOnly })
		b.Empty = func(deploytest.T) { w.reset(deploytest.Names...) }
		return b
	})
}

// machineBench is a node with one target, and another of the same group.
func machineBench(t *testing.T, w *windows, edit func(*Options)) deploytest.Bench {
	t.Helper()
	f := &hosttest.Faulty{Linked: w}
	o := options(t, edit)
	more := options(t, func(o *Options) {
		o.Names, o.Mode, o.Certificates = []string{"second.example.org"}, StoreOnly, "WebHosting"
	})
	of := func(o Options) deploytest.Target {
		d, err := open(o, deploy.Setup{Host: f})
		must(t, err)
		return deploytest.Target{Deployer: known{d, w}, Keys: []farm.KeyType{farm.EC256}}
	}
	return deploytest.Bench{Host: f, Target: of(o), Second: of(more), Bare: true}
}

func TestContractOfCentralStore(t *testing.T) {
	opened := map[string]farm.Bundle{}
	deploytest.Run(t, func(t *testing.T) deploytest.Bench {
		cutElsewhere(t, "package ccs, and between the scripts in TestCentralStoreCut")
		w := newWindows("www.example.org")
		w.mu.Lock()
		w.add("My", deploytest.NewBundle(t, farm.EC256))
		w.mu.Unlock()
		f := &hosttest.Faulty{Linked: w}
		return deploytest.Bench{
			Host: f, Target: centralTarget(t, w, f, "/certs"), Bare: true, // IIS runs without a certificate
			Open: func(data []byte) (chain, key []byte, err error) {
				b, known := opened[string(data)]
				if !known {
					if b, err = encode.OpenPFX(data, secret()); err != nil {
						return nil, nil, err
					}
					opened[string(data)] = b
				}
				return b.Chain, b.Key.Reveal(), nil
			},
		}
	})
}

func centralTarget(t *testing.T, w *windows, f *hosttest.Faulty, folder string) deploytest.Target {
	t.Helper()
	must(t, w.Mkdir(t.Context(), folder, private))
	o := options(t, func(o *Options) {
		o.Store, o.Path, o.User, o.Sites, o.Create = Central, folder, `.\reader`, []string{"Shop"}, true
	})
	d, err := open(o, deploy.Setup{Host: f, Secrets: map[string]farm.Secret{StorePassword: secret(), AccountPassword: farm.NewSecret([]byte("reader-password"))}})
	must(t, err)
	of := deploytest.Target{Deployer: d, Keys: []farm.KeyType{farm.EC256}}
	for _, name := range deploytest.Names {
		at := folder + "/" + name + ".pfx"
		of.Live = append(of.Live, [2]string{at, at})
	}
	return of
}
