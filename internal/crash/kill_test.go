package crash

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/lab"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

// The real program is killed as often as this, on farms side by side, twice in
// each renewal. A CA allows four orders a week for a set of names, so a farm is
// good for three renewals and one order that fails.
const (
	kills     = 20
	soakKills = 1000
	farms     = 4
	perWish   = 2
	wishes    = 3
)

// latest is when after it was asked, or started, the program is killed: a renewal
// takes about a second.
const latest = 1500 * time.Millisecond

// The real certfarm serve is killed with SIGKILL at random moments of issuing and
// rolling out, while the CA and the nodes, which live in this process, go on. Its
// last life brings everything to where it should be.
func TestTheRealProgramIsKilled(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("only on systems with SIGTERM: there is none to end the program in peace with")
	}
	program := build(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var left atomic.Int64
	most := int64(kills)
	if soak {
		most = soakKills
	}
	left.Store(most)
	var all sync.WaitGroup
	for i := range farms {
		chance := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for left.Load() > 0 {
				if err := torture(t, program, chance, &left); err != nil {
					t.Errorf("farm %d: %v", i, err)
					return
				}
			}
		})
	}
	all.Wait()
	t.Logf("killed %d times", most-max(0, left.Load()))
}

// build makes the program as it is shipped.
func build(t *testing.T) string {
	program := filepath.Join(t.TempDir(), "certfarm")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", program, "../../cmd/certfarm")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return program
}

// torture sets up one farm and kills its controller through three wishes.
func torture(t *testing.T, program string, chance *rand.Rand, left *atomic.Int64) (err error) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*within)
	defer cancel()
	v, err := newVictim(t, program)
	defer func() { err = errors.Join(err, v.close()) }()
	if err != nil {
		return err
	}
	for range wishes {
		if err := v.wish(ctx, chance, left); err != nil {
			return fmt.Errorf("%w\nthe program said:\n%s", err, v.said())
		}
	}
	if err := v.end(ctx); err != nil {
		return fmt.Errorf("%w\nthe program said:\n%s", err, v.said())
	}
	return nil
}

// A victim is a farm whose controller is the real program.
type victim struct {
	run
	program, state, challenges string
	text                       []byte // farm.yaml
	key                        farm.Secret
	client                     *client.Client
	process                    *exec.Cmd
	dns                        *issuetest.DNS
	mu                         sync.Mutex
	log                        bytes.Buffer
}

func newVictim(t *testing.T, program string) (v *victim, err error) {
	v = &victim{program: program}
	v.dir, v.story = t.TempDir(), first
	if v.state, err = os.MkdirTemp("", "cf"); err != nil { //nolint:usetesting // a socket's path has 104 bytes at most, TempDir's has the test's name
		return v, err
	}
	v.lab = &lab.Lab{Farm: "lab", Site: "shop"}
	if v.lab.Machines, err = lab.StartMachines(lab.Layout{Dir: v.dir, Nodes: 2, Names: []string{"shop.test"}, Placeholder: true}); err != nil {
		return v, err
	}
	_, port, err := net.SplitHostPort(v.lab.Balancer.HTTPAddr())
	if err != nil {
		return v, err
	}
	o := issuetest.Options{DNS: v.lab.DNS.Addr(), Profiles: map[string]time.Duration{"default": 90 * 24 * time.Hour}}
	if _, err := fmt.Sscan(port, &o.HTTPPort); err != nil {
		return v, err
	}
	if v.lab.CA, err = issuetest.Start(o); err != nil {
		return v, err
	}
	// Before an order the program asks port 80, which is nobody's here: it must
	// come to an address of which it cannot tell anything.
	if v.dns, err = issuetest.StartDNS(map[string][]netip.Addr{"shop.test": {netip.MustParseAddr("127.77.0.1")}}); err != nil {
		return v, err
	}
	if v.challenges, err = quietAddress(); err != nil {
		return v, err
	}
	v.lab.Balancer.RouteChallenges(v.challenges)
	v.watch()
	if v.client, err = client.New(client.Config{Socket: filepath.Join(v.state, "certfarm.sock"), Actor: "crash test"}); err != nil {
		return v, err
	}
	return v, v.write()
}

// quietAddress is one that nobody takes while the program is dead: systems give other
// connections and listeners ports from 32768 up.
func quietAddress() (string, error) {
	for try := 1; ; try++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		if try == 20 {
			return "", err
		}
	}
}

var (
	keyFile   = regexp.MustCompile(`key: \{file: "[^"]*"\}`)
	resolvers = regexp.MustCompile(`(?m)^resolvers: .*$`)
)

// write makes the farm.yaml: the lab's, but with a sealed key and our name server.
func (v *victim) write() error {
	text, err := v.lab.FarmYAML(lab.FarmFile{
		Directory: v.lab.CA.Directory, Profile: "default", Roots: v.lab.CA.ListenRoots + v.lab.CA.Roots, Policy: policy(),
	})
	if err != nil {
		return err
	}
	text = keyFile.ReplaceAll(text, []byte("key: {secret: node-key}"))
	v.text = resolvers.ReplaceAll(text, fmt.Appendf(nil, `resolvers: {".": [%q]}`, v.dns.Address))
	key, err := os.ReadFile(v.lab.KeyFile)
	v.key = farm.NewSecret(key)
	return err
}

// rise starts the program and waits until it is ready.
func (v *victim) rise(ctx context.Context) error {
	v.process = exec.CommandContext(ctx, v.program, "serve", "--state", v.state, "--challenge-listen", v.challenges)
	out, err := v.process.StderrPipe()
	if err != nil {
		return err
	}
	if err := v.process.Start(); err != nil {
		return err
	}
	ready := make(chan bool, 1)
	go func() { // ends with the process
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			v.note(lines.Text())
			if strings.Contains(lines.Text(), "msg=ready") {
				ready <- true
			}
		}
		_, _ = io.Copy(io.Discard, out)
		close(ready)
	}()
	select {
	case is := <-ready:
		if !is {
			return errors.Join(errors.New("the program ended before it was ready"), v.process.Wait())
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (v *victim) note(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.log.WriteString(line + "\n")
}

// said is the end of what the program wrote.
func (v *victim) said() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	text := v.log.Bytes()
	return string(text[max(0, len(text)-6000):])
}

// kill kills the program and waits until it is gone. Then no node may be without
// a pair.
func (v *victim) kill() error {
	if err := v.process.Process.Kill(); err != nil {
		return err
	}
	_ = v.process.Wait() // it says that it was killed
	v.note("--- killed")
	return v.wholeOnNodes()
}

// wish asks for a certificate, kills the program twice on the way, and sees that
// the last life gets there.
func (v *victim) wish(ctx context.Context, chance *rand.Rand, left *atomic.Int64) error {
	v.wishes++
	asked := false
	for n := 0; ; n++ {
		if v.process == nil || v.process.ProcessState != nil {
			if err := v.rise(ctx); err != nil {
				return err
			}
		}
		if !asked {
			if err := v.ask(ctx); err != nil {
				return fmt.Errorf("asking: %w", err)
			}
			asked = true
		}
		if n == perWish || left.Add(-1) < 0 {
			return v.granted(ctx)
		}
		select {
		case <-time.After(time.Duration(chance.Int64N(int64(latest)))):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := v.kill(); err != nil {
			return err
		}
	}
}

// ask applies the farm, or where that is done renews.
func (v *victim) ask(ctx context.Context) error {
	if v.wishes > 1 {
		return v.client.Renew(ctx, "lab", "shop")
	}
	if err := v.client.SetSecret(ctx, "lab", "node-key", v.key); err != nil {
		return err
	}
	p, err := v.client.Plan(ctx, "lab", v.text, "farm.yaml")
	if err != nil {
		return err
	}
	_, err = v.client.Apply(ctx, "lab", v.text, "farm.yaml", p.Revision)
	return err
}

// granted waits until the newest version is on all nodes.
func (v *victim) granted(ctx context.Context) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var d controller.SiteDetail
	for {
		var err error
		if d, err = v.client.Describe(ctx, "lab", "shop"); err != nil {
			return fmt.Errorf("waiting for wish %d: %w; it stood so: %+v", v.wishes, err, d.SiteStatus)
		}
		s := state{story: v.story, had: v.wishes - 1, cert: d.Certificate, versions: d.Versions, orders: d.Orders, rollouts: d.Rollouts}
		if s.over() {
			return nil
		}
		if failed := s.failedOrders(); failed > v.failed && s.cert.Intent == "" {
			v.failed = failed
			if err := v.client.Renew(ctx, "lab", "shop"); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for wish %d: %w; it stood so: %s", v.wishes, ctx.Err(), s)
		}
	}
}

// end stops the program in peace and looks at everything.
func (v *victim) end(ctx context.Context) (err error) {
	if err := v.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := v.process.Wait(); err != nil {
		return fmt.Errorf("stopping the program: %w", err)
	}
	v.database = filepath.Join(v.state, "certfarm.db")
	if v.store, err = store.Open(ctx, v.database, store.Options{ReadOnly: true}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.store.Close()) }()
	if v.keys, err = secret.Load(secret.Source{File: filepath.Join(v.state, "master.key"), MustExist: true}); err != nil {
		return err
	}
	return v.check(ctx)
}

func (v *victim) close() error {
	var errs []error
	if v.process != nil && v.process.ProcessState == nil {
		errs = append(errs, v.process.Process.Kill())
		_ = v.process.Wait() // it says that it was killed
	}
	if v.client != nil {
		v.client.Close()
	}
	if v.dns != nil {
		errs = append(errs, v.dns.Close())
	}
	return errors.Join(append(errs, v.run.close(), os.RemoveAll(v.state))...)
}
