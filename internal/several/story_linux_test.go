package several

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// How many stories are told, and how many at one time: they mostly wait.
const (
	stories     = 10
	soakStories = 1000
	atOnce      = 5
	wishes      = 2 // certificates in a story
	within      = 3 * time.Minute
)

// seedVariable tells a story again, as a failure names it.
const seedVariable = "CERTFARM_SEED"

func TestSeveralControllersTreatedBadly(t *testing.T) {
	seed, n := uint64(time.Now().UnixNano()), stories
	if os.Getenv("CERTFARM_SOAK") != "" {
		n = soakStories
	}
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		n = 1
	}
	storetest.Postgres(t) // skips where there is none
	turns := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			tell(t, seed+uint64(i))
		})
	}
	all.Wait()
}

// tell tells the story of a seed.
func tell(t *testing.T, seed uint64) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	began := time.Now()
	s := &story{t: t, chance: rand.New(rand.NewPCG(seed, 0))}
	err := s.begin(ctx, 2+s.chance.IntN(2))
	for range wishes {
		if err == nil {
			err = s.wish(ctx)
		}
	}
	if err == nil {
		err = s.check(ctx)
	}
	if err != nil {
		t.Errorf("%s=%d: %v\n  %s\n%s", seedVariable, seed, err, strings.Join(s.done, "\n  "), s.said())
	}
	s.end()
	refused := 0
	for _, p := range s.places {
		refused += p.refused
	}
	t.Logf("seed %d: %s; %d calls of relieved controllers were refused; %s", seed, strings.Join(s.done, ", "), refused, time.Since(began).Round(100*time.Millisecond))
}

// A story is one farm and its controllers.
type story struct {
	t      *testing.T
	chance *rand.Rand
	duty   duty
	crew   []*crew
	places []*place
	ca     *issuetest.CA
	dns    *issuetest.DNS
	front  *http.Server
	asker  *controller.Controller // of the test: it asks, and does no work
	config controller.Config
	lines  io.Closer
	wished int
	failed int      // orders that the CA refused since nobody answered
	done   []string // the schedule
}

// A crew is one controller, its line to the database, and where it answers.
type crew struct {
	line    *line
	process *exec.Cmd
	hold    io.Closer // the process ends when it is closed
	owner   string

	mu     sync.Mutex
	answer string
	log    bytes.Buffer
}

// Write keeps what a controller says.
func (c *crew) Write(text []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.log.Write(text)
}

func (c *crew) answers() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.answer
}

func (s *story) begin(ctx context.Context, controllers int) (err error) {
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.front = &http.Server{Handler: http.HandlerFunc(s.ask), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.front.Serve(front) }() // ends with the story
	s.duty = duty{Database: storetest.Postgres(s.t), KeyFile: filepath.Join(s.t.TempDir(), "master.key"), CAPort: front.Addr().(*net.TCPAddr).Port}
	if s.dns, err = issuetest.StartDNS(map[string][]netip.Addr{"shop.test": {netip.MustParseAddr("127.0.0.1")}}); err != nil {
		return err
	}
	if s.ca, err = issuetest.Start(issuetest.Options{DNS: s.dns.Address, HTTPPort: s.duty.CAPort}); err != nil {
		return err
	}
	for range 2 {
		p, err := newPlace(rand.New(rand.NewPCG(s.chance.Uint64(), 0)))
		if err != nil {
			return err
		}
		s.places = append(s.places, p)
	}
	if s.config, s.lines, err = s.duty.config(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	s.asker = controller.New(s.config)
	if err := s.asker.SetSecret(ctx, "several", "hmac", farm.NewSecret(bytes.Repeat([]byte("k"), 32)), "test"); err != nil {
		return err
	}
	to, err := url.Parse(s.duty.Database)
	if err != nil {
		return err
	}
	for range controllers {
		l, err := newLine(to.Host)
		if err != nil {
			return err
		}
		c := &crew{line: l}
		s.crew = append(s.crew, c)
		if err := s.rise(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// rise starts a controller's process and waits until it answers.
func (s *story) rise(ctx context.Context, c *crew) error {
	d := s.duty
	d.Owner = store.NewID("ctl")
	c.owner = d.Owner
	u, err := url.Parse(d.Database)
	if err != nil {
		return err
	}
	u.Host = c.line.listener.Addr().String()
	d.Database = u.String()
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	c.process = exec.CommandContext(context.WithoutCancel(ctx), os.Args[0])
	c.process.Env = append(os.Environ(), variable+"="+string(text))
	c.process.Stderr = c
	in, err := c.process.StdinPipe()
	if err != nil {
		return err
	}
	out, err := c.process.StdoutPipe()
	if err != nil {
		return err
	}
	c.hold = in
	if err := c.process.Start(); err != nil {
		return err
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return errors.Join(fmt.Errorf("a controller did not start: %w", err), c.process.Wait())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = strings.TrimSpace(first)
	return nil
}

// ask is the balancer in front: it hands a question of the CA to a controller that
// answers.
func (s *story) ask(w http.ResponseWriter, r *http.Request) {
	client := http.Client{Timeout: time.Second}
	for _, c := range s.crew {
		q, err := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://"+c.answers()+r.URL.Path, nil)
		if err != nil {
			continue
		}
		q.Host = r.Host
		a, err := client.Do(q)
		if err != nil {
			continue
		}
		defer func() { _ = a.Body.Close() }()
		if a.StatusCode >= http.StatusInternalServerError {
			continue
		}
		w.WriteHeader(a.StatusCode)
		_, _ = io.Copy(w, a.Body) // the CA asks again
		return
	}
	w.WriteHeader(http.StatusBadGateway)
}

// farmYAML is the farm: one site on two fenced places.
func (s *story) farmYAML() []byte {
	var targets string
	for i, p := range s.places {
		ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.hook.Certificate().Raw})
		targets += fmt.Sprintf(`
      - {kind: webhook, name: hook%d, options: {url: %q, deliver: true, timeout: 5s, allow_private: [127.0.0.0/8], ca: %q}, secrets: {hmac: {secret: hmac}}, endpoints: [{address: %q}]}`,
			i, p.hook.URL, ca, p.endpoint.Addr())
	}
	return fmt.Appendf(nil, `farm: several
resolvers: {".": [%q]}
issuers:
  pebble: {acme: %q, contact: ["mailto:ops@shop.test"], roots: %q}
nodes: {here: {local: true}}
sites:
  shop:
    names: [shop.test]
    issuer: pebble
    keys: [ec256]
    validation: {method: http-01, via: gateway}
    targets:%s
    policy: {canary: 1, soak: 0s, deadline: 20s, healthy_deadline: 5s, failure_budget: 0, drift: heal}
`, s.dns.Address, s.ca.Directory, s.ca.ListenRoots+s.ca.Roots, targets)
}

// wish asks for a certificate, treats the controllers badly meanwhile, and waits
// until every place serves it.
func (s *story) wish(ctx context.Context) error {
	s.wished++
	if s.wished == 1 {
		if _, err := s.asker.Apply(ctx, s.farmYAML(), "farm.yaml", "test", 0); err != nil {
			return err
		}
	} else if err := s.asker.Renew(ctx, "several", "shop", "test"); err != nil {
		return err
	}
	for range 1 + s.chance.IntN(2) {
		if err := s.trouble(ctx); err != nil {
			return err
		}
	}
	return s.granted(ctx)
}

// trouble is one thing that happens to one controller.
func (s *story) trouble(ctx context.Context) error {
	victim, busy, act := s.chance.IntN(len(s.crew)), s.chance.IntN(3) > 0, s.chance.IntN(2) > 0
	in := time.Duration(s.chance.Int64N(int64(1500 * time.Millisecond)))
	span := time.Duration(s.chance.Int64N(int64(2 * pace().Lease)))
	sort := s.chance.IntN(4)
	when := "after " + in.Round(time.Millisecond).String()
	if act {
		in /= 4
		when = in.Round(time.Millisecond).String() + " into an act"
		s.deploying(ctx)
	}
	if err := wait(ctx, in); err != nil {
		return err
	}
	if busy || act {
		victim = s.working(ctx, victim)
	}
	c := s.crew[victim]
	s.done = append(s.done, fmt.Sprintf("%s %d %s for %s", []string{"kill", "stop", "cut", "mute"}[sort], victim, when, span.Round(time.Millisecond)))
	switch sort {
	case 0:
		if err := c.process.Process.Kill(); err != nil {
			return err
		}
		_ = c.process.Wait() // it says that it was killed
		if err := wait(ctx, span); err != nil {
			return err
		}
		return s.rise(ctx, c)
	case 1:
		if err := c.process.Process.Signal(syscall.SIGSTOP); err != nil {
			return err
		}
		return errors.Join(wait(ctx, span), c.process.Process.Signal(syscall.SIGCONT))
	case 2:
		c.line.sever()
	default:
		c.line.silence()
	}
	defer c.line.heal()
	return wait(ctx, span)
}

// deploying waits until something is done on a target, a while at most: the wish may
// have come true.
func (s *story) deploying(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		written := s.config.Store.Written()
		if s.holder(ctx, "act") >= 0 {
			return
		}
		select {
		case <-written:
		case <-ctx.Done():
			return
		}
	}
}

// working is a controller that does something now, rather on a target; else, where
// none does, another.
func (s *story) working(ctx context.Context, another int) int {
	for _, kind := range []string{"act", ""} {
		if i := s.holder(ctx, kind); i >= 0 {
			return i
		}
	}
	return another
}

// holder is a controller that holds a lane for a job of a kind, or of any (""); -1
// if none does.
func (s *story) holder(ctx context.Context, kind string) (found int) {
	found = -1
	_ = s.config.Store.View(ctx, func(tx *store.Tx) error { // then none is known
		held, err := tx.Held(ctx, "several", 0)
		for i, c := range s.crew {
			for _, h := range held {
				if h.Owner == c.owner && (kind == "" || h.Kind == kind) {
					found = i
				}
			}
		}
		return err
	})
	return found
}

// wait lets time pass: it is what a schedule is made of.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// granted waits until the wish has come true. An order that the CA refused, since
// nobody answered it, is asked for once more, as a person would.
func (s *story) granted(ctx context.Context) error {
	for {
		written := s.config.Store.Written()
		d, err := s.asker.Describe(ctx, "several", "shop")
		if err != nil {
			return err
		}
		if s.over(d) {
			return nil
		}
		failed := 0
		for _, o := range d.Orders {
			if o.State == farm.OrderFailed {
				failed++
			}
		}
		if failed > s.failed && d.Certificate.Intent == "" && len(d.Versions) < s.wished {
			s.failed = failed
			if err := s.asker.Renew(ctx, "several", "shop", "test"); err != nil {
				return err
			}
		}
		select {
		case <-written:
		case <-time.After(time.Second): // what a place serves is not written
		case <-ctx.Done():
			return fmt.Errorf("wish %d: %w; it stood so: %s", s.wished, ctx.Err(), s.stands(d))
		}
	}
}

// over reports that the newest version is served everywhere and nothing is under way.
func (s *story) over(d controller.SiteDetail) bool {
	if len(d.Versions) != s.wished || d.Certificate.Intent != "" || len(d.Rollouts) == 0 || d.Rollouts[0].Outcome != farm.Done || d.Rollouts[0].To.ID != d.Versions[0].ID {
		return false
	}
	for _, p := range s.places {
		p.mu.Lock()
		live := p.live.fingerprint
		p.mu.Unlock()
		if live != d.Versions[0].Leaves[0].Fingerprint {
			return false
		}
	}
	return true
}

func (s *story) stands(d controller.SiteDetail) string {
	text := fmt.Sprintf("%d versions, intent %q, verdict %q, attention %q", len(d.Versions), d.Certificate.Intent, d.Certificate.Verdict, d.Attention)
	for _, o := range d.Orders {
		text += fmt.Sprintf("\n  order %s: %s %s", o.ID, o.State, o.Error)
	}
	for _, r := range d.Rollouts {
		text += fmt.Sprintf("\n  rollout %s of %s: %q %s", r.ID, r.To.ID, r.Outcome, r.Why)
		for _, t := range r.Steps {
			text += fmt.Sprintf("\n    %s is %s, doing %q: %s", t.Target, t.State, t.Doing, t.Error)
		}
	}
	_ = s.config.Store.View(s.t.Context(), func(tx *store.Tx) error { // it is only told
		jobs, err := tx.Jobs(s.t.Context(), "several", 0)
		for _, j := range jobs {
			text += fmt.Sprintf("\n  job %s %s in %s, owner %q, attempt %d: %s", j.Kind, j.Subject, j.RunAt.Sub(tx.Now()).Round(time.Millisecond), j.Owner, j.Attempt, j.Error)
		}
		return err
	})
	return text
}

// check holds everything against what must be true in the end.
func (s *story) check(ctx context.Context) error {
	d, err := s.asker.Describe(ctx, "several", "shop")
	if err != nil {
		return err
	}
	var errs []error
	for i, p := range s.places {
		p.mu.Lock()
		for _, w := range p.wrong {
			errs = append(errs, fmt.Errorf("place %d: a stale effect: %s; all: %+v", i, w, p.effects))
		}
		p.mu.Unlock()
	}
	intents, well := map[string]int{}, 0
	for _, o := range d.Orders {
		if intents[o.Intent]++; intents[o.Intent] > 1 {
			errs = append(errs, fmt.Errorf("intent %s has a second order", o.Intent))
		}
		if o.State != farm.OrderFailed {
			well++
		}
	}
	stats := s.ca.Stats()
	if n := stats.Finalized["shop.test"]; n > well {
		errs = append(errs, fmt.Errorf("%d orders were finalized for %d that are well", n, well))
	}
	if n := stats.Certificates["shop.test"]; n != len(d.Versions) {
		errs = append(errs, fmt.Errorf("the CA issued %d certificates, and we have %d", n, len(d.Versions)))
	}
	return errors.Join(append(errs, s.seen(ctx))...)
}

// seen: whoever lives is known to live.
func (s *story) seen(ctx context.Context) error {
	k, err := s.asker.Checkup(ctx, "several")
	if err != nil {
		return err
	}
	alive := 0
	for _, c := range k.Controllers {
		if c.Alive {
			alive++
		}
	}
	if alive < len(s.crew) || k.Database.Engine != "postgres" || k.Database.Identity == "" {
		return fmt.Errorf("%d controllers work, doctor tells of %+v on %+v", len(s.crew), k.Controllers, k.Database)
	}
	return nil
}

// said is the end of what each controller wrote.
func (s *story) said() (text string) {
	for i, c := range s.crew {
		c.mu.Lock()
		log := c.log.Bytes()
		text += fmt.Sprintf("controller %d:\n%s\n", i, log[max(0, len(log)-3000):])
		c.mu.Unlock()
	}
	return text
}

// end ends everything that was begun.
func (s *story) end() {
	for _, c := range s.crew {
		if c.process != nil && c.process.Process != nil {
			_ = c.process.Process.Kill() // it may be dead
			_ = c.process.Wait()         // it says that it was killed
		}
		c.line.close()
	}
	for _, p := range s.places {
		p.close()
	}
	if s.front != nil {
		_ = s.front.Close()
	}
	if s.lines != nil {
		_, _ = s.lines.Close(), s.config.Store.Close()
	}
	if s.ca != nil {
		_ = s.ca.Close()
	}
	if s.dns != nil {
		_ = s.dns.Close()
	}
}
