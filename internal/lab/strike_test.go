package lab

import (
	"context"
	"strings"
	"testing"
	"time"
)

func TestSSHDown(t *testing.T) {
	b, _, fingerprint := newServing(t, NodeConfig{})
	open, err := b.login()
	must(t, err)
	must(t, b.Set(Fault{Kind: SSHDown}))
	if _, err := open.NewSession(); err == nil {
		t.Error("an open connection lives on")
	}
	if canConnect(b.SSHAddr()) {
		t.Error("the SSH port takes connections")
	}
	b.serving(fingerprint)
	must(t, b.Clear())
	b.ok("true")
}

func TestDownAndBack(t *testing.T) {
	b, ca, _ := newServing(t, NodeConfig{})
	fingerprint := b.renew(ca)
	must(t, b.Set(Fault{Kind: Down, For: 200 * time.Millisecond}))
	for _, addr := range []string{b.SSHAddr(), b.HTTPAddr(), b.HTTPSAddr()} {
		if canConnect(addr) {
			t.Errorf("%s takes connections", addr)
		}
	}
	if b.Serves() {
		t.Error("serves while it is down")
	}
	must(t, Await(soon(t), b.HTTPSAddr(), "shop.test", fingerprint)) // as after a boot: it has read its files
	eventually(t, "SSH is back", func() bool { return canConnect(b.SSHAddr()) })
	b.ok("true")
	if f := b.Fault(); f.Kind != NoFault {
		t.Errorf("the fault %s is still set", f)
	}
}

func TestANewFaultOutlivesTheTimeOfTheOld(t *testing.T) {
	b, _, _ := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: Down, For: 50 * time.Millisecond}))
	must(t, b.Set(Fault{Kind: Down}))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := Await(ctx, b.HTTPSAddr(), "shop.test", ""); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	if canConnect(b.HTTPSAddr()) || b.Fault().Kind != Down {
		t.Error("came back by the time of a fault that was replaced")
	}
}

func TestHangs(t *testing.T) {
	b, _, fingerprint := newServing(t, NodeConfig{})
	open, err := b.login()
	must(t, err)
	must(t, b.Set(Fault{Kind: Hangs}))
	if !canConnect(b.SSHAddr()) {
		t.Error("the SSH port refuses")
	}
	answered := make(chan error, 1)
	go func() {
		_, err := open.NewSession()
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("answered: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	b.serving(fingerprint)
	must(t, open.Close())
	<-answered
	must(t, b.Clear())
	b.ok("true")
}

func TestDiskFull(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: DiskFull}))
	text, _ := ca.issue(t, "shop.test")
	if err := b.upload("/store/new.pem", text); err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("uploading: %v", err)
	}
	b.serving(old)
	must(t, b.Clear())
	must(t, b.upload("/store/new.pem", text))
}

func TestWrongKey(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: WrongKey}))
	b.renew(ca)
	for _, verb := range []string{"-t", "reload"} {
		if out := b.refused("webd " + verb); !strings.Contains(out, "key values mismatch") {
			t.Errorf("webd %s: %s", verb, out)
		}
	}
	b.serving(old)
	must(t, b.Clear())
	fingerprint := b.renew(ca)
	b.ok("webd reload")
	b.serving(fingerprint)
}

func TestBadReload(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: BadReload}))
	fingerprint := b.renew(ca)
	b.ok("webd -t")
	b.ok("webd reload")
	b.serving(old)
	must(t, b.Clear())
	b.ok("webd reload")
	b.serving(fingerprint)
}

func TestDiesOnReload(t *testing.T) {
	b, ca, _ := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: DiesOnReload}))
	fingerprint := b.renew(ca)
	b.ok("webd reload")
	if canConnect(b.HTTPSAddr()) || b.Serves() {
		t.Error("still serves")
	}
	b.refused("webd reload")
	b.ok("webd -t")
	b.ok("webd start")
	b.serving(fingerprint)
}

func TestWrongChain(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	good, err := readPEM(b.c.Dir, DefaultPEM, "certificate", "CERTIFICATE")
	must(t, err)
	must(t, b.Set(Fault{Kind: WrongChain}))
	b.ok("webd reload")
	if got, err := ca.trusted(t, b.HTTPSAddr(), "shop.test"); err != nil || got != old {
		t.Errorf("the old certificate is harmed: %s %v", got, err)
	}
	fingerprint := b.renew(ca)
	b.ok("webd -t")
	b.ok("webd reload")
	b.serving(fingerprint)
	if _, err := ca.trusted(t, b.HTTPSAddr(), "shop.test"); err == nil {
		t.Error("the new certificate is trusted")
	}
	must(t, b.upload(DefaultPEM, good))
	b.ok("webd reload")
	if got, err := ca.trusted(t, b.HTTPSAddr(), "shop.test"); err != nil || got != old {
		t.Errorf("switched back: %s %v", got, err)
	}
}

func TestDiesForGood(t *testing.T) {
	b, ca, old := newServing(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: DiesForGood}))
	must(t, b.upload(DefaultPEM, []byte("not a certificate")))
	b.refused("webd reload")
	b.serving(old) // a reload that fails does not count
	b.renew(ca)
	b.ok("webd reload")
	eventually(t, "the machine is gone", b.Gone)
	must(t, b.Clear())
	eventually(t, "nothing answers", func() bool {
		return !canConnect(b.SSHAddr()) && !canConnect(b.HTTPAddr()) && !canConnect(b.HTTPSAddr())
	})
}

func TestClosedNodeTakesNoFault(t *testing.T) {
	b := newBench(t, NodeConfig{})
	must(t, b.Set(Fault{Kind: Down, For: time.Hour}))
	must(t, b.Close()) // does not wait an hour
	if b.Set(Fault{Kind: Hangs}) == nil {
		t.Error("sets a fault on a closed node")
	}
}
