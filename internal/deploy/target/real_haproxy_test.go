package target

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/deploy/deploytest"
	"github.com/certfarm/certfarm/internal/deploy/haproxyctl"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host/hosttest"
	"github.com/certfarm/certfarm/internal/host/local"
)

// startHAProxy has shop.pem of the target and other.pem of somebody else.
func startHAProxy(t *testing.T) *real {
	t.Helper()
	program, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed")
	}
	r := &real{kind: "haproxy", dir: t.TempDir(), addr: freeAddr(t)}
	conf := r.dir + "/haproxy.cfg"
	text := fmt.Sprintf("global\n  stats socket %s/admin.sock level admin\n  maxconn 200\ndefaults\n  mode http\n  timeout client 5s\n  timeout server 5s\n  timeout connect 5s\n", r.dir)
	text += fmt.Sprintf("frontend f\n  bind %s ssl crt %s/tls/shop.pem crt %s/other.pem\n  http-request return status 200\n", r.addr, r.dir, r.dir)
	must(t, os.WriteFile(conf, []byte(text), 0o644))
	must(t, os.WriteFile(r.dir+"/other.pem", []byte(stranger(t)), 0o600))
	r.options = map[string]any{
		"pem": r.dir + "/tls/shop.pem", "store": r.dir + "/store", "socket": r.dir + "/admin.sock",
		"test":   []string{program, "-c", "-f", conf},
		"reload": []string{"sh", "-c", "kill -USR2 $(cat " + r.dir + "/pid)"},
		"start":  []string{program, "-W", "-D", "-p", r.dir + "/pid", "-f", conf},
	}
	r.open(t)
	t.Cleanup(func() {
		_ = exec.Command("sh", "-c", "kill $(cat "+r.dir+"/pid)").Run()
		r.gone(t)
	})
	return r
}

// stranger is somebody else's certificate, for another name.
func stranger(t *testing.T) string {
	t.Helper()
	b, err := encode.Placeholder([]string{"other.example.net"}, time.Now())
	must(t, err)
	return pemOf(t, b)
}

func pemOf(t *testing.T, b farm.Bundle) string {
	t.Helper()
	text, err := format{}.text(combined, b)
	must(t, err)
	return string(text)
}

// running is a HAProxy that serves a first certificate, and tells of reloads.
func running(t *testing.T) (r *real, first farm.Bundle) {
	t.Helper()
	r = startHAProxy(t)
	first = deploytest.NewBundle(t, farm.EC256)
	must(t, r.Activate(t.Context(), r.stage(t, 1, first)))
	r.serves(t, first.Leaf)
	return r, first
}

func (r *real) admin(t *testing.T, command string) string {
	t.Helper()
	reply, err := haproxyctl.Line{Host: local.New(local.Config{}), Network: "unix", Address: r.dir + "/admin.sock"}.Ask(t.Context(), command+"\n")
	must(t, err)
	return reply
}

// Thirty swaps under clients that open connections all the time: none is lost, none
// sees a certificate that was never installed, and HAProxy is never reloaded.
func TestHAProxyLosesNoHandshake(t *testing.T) {
	r, first := running(t)
	r.options["reload"], r.options["test"] = []string{"false"}, []string{}
	r.open(t)
	var known sync.Map
	known.Store(first.Leaf, true)
	var shaken, lost atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 3 {
		clients.Go(func() {
			for ctx.Err() == nil {
				leaf := r.served()
				_, ours := known.Load(leaf)
				if shaken.Add(1); !ours {
					lost.Add(1)
				}
			}
		})
	}
	begin := time.Now()
	var last string
	for epoch := range int64(30) {
		next := deploytest.NewBundle(t, farm.EC256)
		known.Store(next.Leaf, true)
		rs := r.stage(t, epoch+2, next)
		must(t, r.Activate(t.Context(), rs))
		if got := r.served(); got != next.Leaf {
			t.Errorf("swap %d: %s is served at once, not %s", epoch, farm.Short(got), farm.Short(next.Leaf))
		}
		last = next.Leaf
		if epoch%10 == 9 {
			must(t, r.Restore(t.Context(), rs))
			must(t, r.Activate(t.Context(), rs))
		}
	}
	took := time.Since(begin)
	stop()
	clients.Wait()
	t.Logf("30 swaps in %s under %d handshakes", took.Round(time.Millisecond), shaken.Load())
	if lost.Load() > 0 || shaken.Load() < 100 {
		t.Errorf("%d of %d handshakes were lost", lost.Load(), shaken.Load())
	}
	start := r.options["start"].([]string)
	must(t, exec.Command("sh", "-c", "kill $(cat "+r.dir+"/pid)").Run())
	r.gone(t)
	must(t, exec.Command(start[0], start[1:]...).Run())
	r.serves(t, last) // what is on disk is what was served
}

// intruder is a host on which somebody else speaks to HAProxy just before the n-th
// time that we do.
type intruder struct {
	hosttest.Linked
	before func(n int)
	dials  int
}

func (i *intruder) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	i.dials++
	i.before(i.dials)
	return i.Linked.Dial(ctx, network, address)
}

// HAProxy's transaction is one for all certificates: whatever a second writer does
// between our commands, no certificate is served under the name of another.
func TestHAProxySecondWriter(t *testing.T) {
	r, first := running(t)
	shop, other := r.dir+"/tls/shop.pem", r.dir+"/other.pem"
	theirs := stranger(t)
	set := func(name string) { r.admin(t, "set ssl cert "+name+" <<\n"+theirs) }
	leaf, err := encode.Leaf([]byte(theirs))
	must(t, err)
	before := r.admin(t, "show ssl cert "+other)
	for _, c := range []struct { // show 1, abort 2, set 3, show *NAME 4, commit 5, show 6
		n    int
		name string
	}{
		{3, other}, // theirs is open when we set: ours goes into it
		{3, shop},  // the same, under our own name: parts of theirs would stay in it
		{4, other}, // theirs goes into ours
		{5, other}, // theirs goes into ours, after we looked
	} {
		n, name := c.n, c.name
		t.Run(fmt.Sprintf("%s before command %d", path.Base(name), n), func(t *testing.T) {
			done := false
			i := &intruder{Linked: local.New(local.Config{})}
			i.before = func(at int) {
				if at == n && !done {
					done = true
					set(name)
				}
				if n < 5 && shows(r.admin(t, "show ssl cert "+shop)+"\n", leaf) { // after we looked, nothing keeps it out for a moment
					t.Error("theirs is served under our name")
				}
			}
			text := []byte(fmt.Sprintf(`{"pem": %q, "store": %q, "socket": %q, "test": [], "reload": [], "start": []}`, shop, r.dir+"/store", r.dir+"/admin.sock"))
			d, err := All().Open("haproxy", text, deploy.Setup{Host: i})
			must(t, err)
			next := deploytest.NewBundle(t, farm.EC256)
			staged, err := d.Stage(t.Context(), deploy.Stage{Names: deploytest.Names, Bundles: []farm.Bundle{next}, Epoch: int64(n)})
			must(t, err)
			i.dials = 0
			if err := d.Activate(t.Context(), []deploy.Receipt{staged}); err == nil {
				t.Error("it succeeded")
			} else {
				t.Log(err)
			}
			if now := r.admin(t, "show ssl cert "+other); now != before {
				t.Errorf("the other's certificate was changed:\n%s", now)
			}
			if got := r.served(); got != first.Leaf {
				t.Errorf("%s is served, not %s", farm.Short(got), farm.Short(first.Leaf))
			}
			if reply := r.admin(t, "abort ssl cert "+other); !strings.HasPrefix(reply, "No ongoing") {
				t.Errorf("a transaction was left open: %s", reply)
			}
		})
	}
}

// A transaction that is open: a stranger's is left alone, and told of; our own, of
// a controller that died, is ended.
func TestHAProxyOpenTransaction(t *testing.T) {
	r, first := running(t)
	theirs := stranger(t)
	r.admin(t, "set ssl cert "+r.dir+"/other.pem <<\n"+theirs)
	rs := r.stage(t, 2, deploytest.NewBundle(t, farm.EC256))
	if err := r.Activate(t.Context(), rs); err == nil || !strings.Contains(err.Error(), "abort ssl cert "+r.dir+"/other.pem") {
		t.Errorf("got %v", err)
	}
	if got := r.served(); got != first.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
	if reply := r.admin(t, "commit ssl cert "+r.dir+"/other.pem"); !strings.Contains(reply, "Success!") {
		t.Errorf("their transaction was spoiled: %s", reply)
	}
	leaf, err := encode.Leaf([]byte(theirs))
	must(t, err)
	if now := r.admin(t, "show ssl cert "+r.dir+"/other.pem"); !shows(now+"\n", leaf) {
		t.Errorf("they have\n%s", now)
	}

	must(t, os.Remove(r.dir+"/other.pem")) // now it is one of ours
	must(t, os.Symlink(r.dir+"/store/0123/current/combined.pem", r.dir+"/other.pem"))
	r.admin(t, "set ssl cert "+r.dir+"/other.pem <<\n"+theirs)
	next := deploytest.NewBundle(t, farm.EC256)
	r.options["test"] = []string{} // the link leads nowhere
	r.open(t)
	must(t, r.Activate(t.Context(), r.stage(t, 3, next)))
	if got := r.served(); got != next.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
}

// What HAProxy itself refuses changes neither what it serves nor the disk.
func TestHAProxyRefuses(t *testing.T) {
	r, first := running(t)
	rt := runtime{engine: r.Deployer.(*engine), cli: cli{haproxyctl.Line{Host: local.New(local.Config{}), Network: "unix", Address: r.dir + "/admin.sock"}}}
	mixed := deploytest.NewBundle(t, farm.EC256)
	mixed.Key = first.Key
	if err := rt.swap(t.Context(), r.dir+"/tls/shop.pem", []byte(pemOf(t, mixed))); err == nil {
		t.Error("a wrong key was taken")
	}
	if reply := r.admin(t, "abort ssl cert "+r.dir+"/tls/shop.pem"); !strings.HasPrefix(reply, "No ongoing") {
		t.Errorf("the refused commit left its transaction open: %s", reply)
	}
	if got := r.served(); got != first.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
	must(t, rt.swap(t.Context(), r.dir+"/tls/shop.pem", []byte("\n"+strings.ReplaceAll(pemOf(t, deploytest.NewBundle(t, farm.RSA2048)), "-----BEGIN", "\n-----BEGIN"))))
}

// A certificate that HAProxy has not loaded goes into its crt-list while it runs.
func TestHAProxyNewCertificate(t *testing.T) {
	r := startHAProxy(t)
	list := r.dir + "/list.txt"
	must(t, os.WriteFile(list, []byte(r.dir+"/other.pem\n"), 0o644))
	conf := r.dir + "/haproxy.cfg"
	text, err := os.ReadFile(conf)
	must(t, err)
	text = []byte(strings.Replace(string(text), "crt "+r.dir+"/tls/shop.pem crt "+r.dir+"/other.pem", "crt-list "+list, 1))
	must(t, os.WriteFile(conf, text, 0o644))
	start := r.options["start"].([]string)
	must(t, exec.Command(start[0], start[1:]...).Run())
	r.until(t, "up", func() bool { return r.served() != "" })
	r.options["crt_list"], r.options["reload"] = list, []string{"false"}
	r.open(t)
	first := deploytest.NewBundle(t, farm.EC256)
	must(t, r.Activate(t.Context(), r.stage(t, 1, first)))
	r.until(t, "serving it", func() bool { return r.served() == first.Leaf })
	second := deploytest.NewBundle(t, farm.EC256)
	rs := r.stage(t, 2, second)
	must(t, r.Activate(t.Context(), rs))
	if got := r.served(); got != second.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
	must(t, r.Restore(t.Context(), rs))
	if got := r.served(); got != first.Leaf {
		t.Errorf("%s is served", farm.Short(got))
	}
}
