package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/dnsserve"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/prove/http01"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// TestOwnNameServers: two controllers on one PostgreSQL are the two name servers of
// the zone that the names are delegated to. The one that tells the CA to look is
// killed before the CA asks. The other answers, and gets the certificate; and later
// a second one, alone.
func TestOwnNameServers(t *testing.T) {
	database := storetest.Postgres(t)
	if !inNames(t, []string{"named", "knotd", "ss"}, ownPostgres) {
		return
	}
	w := newNames(t, minimalAt)
	master := filepath.Join(t.TempDir(), "master.key")
	r := w.rig(t, "own", database, master) // it asks, and does nothing by itself
	s := wish{names: []string{"shop.bind.test", "*.shop.bind.test"}, validation: "{dns: own}"}
	peers := map[int]*peer{}
	for _, at := range []string{ownAt, otherAt} {
		p := startController(t, controlling{Database: database, Master: master, DNS: net.JoinHostPort(at, "53")})
		peers[p.Process.Pid] = p
	}
	r.applyText(t, w.farmYAML(t, r.nodes[0], s))
	r.held(t)
	w.verdicts(t, r, map[string]http01.Sort{"shop.bind.test dns-01": http01.Wrong})
	w.setSnippet(t, r)
	within(t, limit, "what the resolver knew of before is forgotten", func() bool {
		return len(records(minimalAt, "own.test", dns.TypeSOA)) == 1
	})
	w.verdicts(t, r, map[string]http01.Sort{"shop.bind.test dns-01": http01.Right})

	var once sync.Once
	killed := make(chan int, 1)
	w.whenTold(func(req *http.Request) {
		once.Do(func() {
			pid := clientOf(t, req)
			if p := peers[pid]; p != nil {
				p.kill()
				killed <- pid
			}
		})
	})
	w.goesOn(t, r, s)
	select {
	case pid := <-killed:
		t.Logf("process %d was killed", pid)
	default:
		t.Fatal("no controller was killed: nothing is shown")
	}
	w.nothingLeft(t, r)
	if n := w.opened(s); n != 1 {
		t.Errorf("the CA has heard of %d orders", n)
	}
	w.verdicts(t, r, map[string]http01.Sort{"shop.bind.test dns-01": http01.Right}) // one of two name servers is silent
	w.goesOn(t, r, s)
	w.nothingLeft(t, r)
}

// nothingLeft waits until no value is in the zone of the controllers.
func (w *nameWorld) nothingLeft(t *testing.T, r *rig) {
	t.Helper()
	within(t, limit, "nothing is left in own.test", func() bool {
		there, err := r.ZoneSource().Below(t.Context(), "own.test")
		must(t, err)
		return !there
	})
}

// clientOf is the process that sent a request.
func clientOf(t *testing.T, r *http.Request) int {
	_, port, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		t.Error(err)
		return 0
	}
	out, err := exec.Command("ss", "-Htnp", "sport = :"+port).CombinedOutput()
	found := regexp.MustCompile(`pid=([0-9]+)`).FindSubmatch(out)
	if err != nil || found == nil {
		t.Errorf("ss: %v: %s", err, out)
		return 0
	}
	pid, _ := strconv.Atoi(string(found[1])) // it is of digits
	return pid
}

// controllerVariable tells a process of this test's binary to be a controller.
const controllerVariable = "CERTFARM_E2E_CONTROLLER"

// A controlling is what a controller in a process of its own is told.
type controlling struct {
	Database string // address of PostgreSQL
	Master   string // file with the master key
	DNS      string // where it is a name server
}

// A peer is a controller in a process of its own.
type peer struct {
	*exec.Cmd
	out *locked
}

// startController returns when the controller answers DNS.
func startController(t *testing.T, c controlling) *peer {
	t.Helper()
	text, err := json.Marshal(c)
	must(t, err)
	p := &peer{exec.Command(os.Args[0]), &locked{}}
	p.Env, p.Stderr = append(os.Environ(), controllerVariable+"="+string(text)), p.out
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	out, err := p.StdoutPipe()
	must(t, err)
	must(t, p.Start())
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the controller at %s:\n%s", c.DNS, p.out.String())
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("a controller does not start: %q, %v\n%s", line, err, p.out.String())
	}
	return p
}

// kill ends it as a power cut does.
func (p *peer) kill() { quit(p.Cmd) }

// controllerMain is a controller as `certfarm serve` runs it, but that its jobs are
// taken over soon when it is dead. It prints a line when it answers.
func controllerMain(told string) int {
	ctx := context.Background()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	var c controlling
	err := json.Unmarshal([]byte(told), &c)
	if err == nil {
		err = control(ctx, c, log)
	}
	log.Error("ended", "error", err)
	return 1
}

func control(ctx context.Context, c controlling, log *slog.Logger) error {
	s, err := store.Open(ctx, c.Database, store.Options{})
	if err != nil {
		return err
	}
	keys, err := secret.Load(secret.Source{File: c.Master})
	if err != nil {
		return err
	}
	config, lines := controller.Real(s, keys, log)
	config.InPlace, config.Pace = true, pace
	config.Pace.Lease = 2 * time.Second
	ctl := controller.New(config)
	names, err := dnsserve.Listen(ctx, dnsserve.Config{Source: ctl.ZoneSource(), Addresses: []string{c.DNS}})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	go func() { // ends with the process
		for {
			<-time.After(200 * time.Millisecond) // nothing tells of what another process has written
			if err := wake(ctx, s); err != nil {
				log.Error("wake", "error", err)
			}
		}
	}()
	err = ctl.Run(ctx)
	names.Close()
	return errors.Join(err, lines.Close(), s.Close())
}

// wake has the controller look at once for what is due: by itself it looks every 30
// seconds for the jobs that others wrote.
func wake(ctx context.Context, s *store.Store) error {
	return s.Update(ctx, func(tx *store.Tx) error {
		farms, err := tx.Farms(ctx)
		for _, f := range farms {
			err = errors.Join(err, tx.Enqueue(ctx, farm.Job{Farm: f, Kind: "notify", Subject: f, RunAt: tx.Now()}))
		}
		return err
	})
}
