package several

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
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
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/issue/boulder"
	"github.com/certfarm/certfarm/internal/issue/issuetest"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// How many stories are told: with the race detector, which makes each several times as
// long, a few; `make test` tells the others without it.
const (
	stories     = 50
	raceStories = 6
	soakStories = 1000
	wishes      = 2 // certificates in a story
	within      = 5 * time.Minute
)

// atOnce is how many stories are told at one time: they mostly wait, but a controller
// that has no processor for a second loses its leases.
func atOnce() int {
	if racing {
		return 4
	}
	return 12
}

// The variables of a run: the seed of the first story, as a failure names it, and how
// many are told from there on.
const (
	seedVariable  = "CERTFARM_SEED"
	countVariable = "CERTFARM_STORIES"
	soakVariable  = "CERTFARM_SOAK"
)

// wanted is what the variables say.
func wanted() (seed uint64, n int, err error) {
	seed, n = uint64(time.Now().UnixNano()), stories
	if racing {
		n = raceStories
	}
	if os.Getenv(soakVariable) != "" {
		n = soakStories
	}
	if text := os.Getenv(seedVariable); text != "" {
		n = 1
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			return seed, n, err
		}
	}
	if text := os.Getenv(countVariable); text != "" {
		n, err = strconv.Atoi(text)
	}
	return seed, n, err
}

func TestSeveralControllersTreatedBadly(t *testing.T) {
	seed, n, err := wanted()
	if err != nil {
		t.Fatal(err)
	}
	storetest.Postgres(t) // skips where there is none
	turns := make(chan struct{}, atOnce())
	var all sync.WaitGroup
	for i := range n {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			t.Run(fmt.Sprint(i), func(t *testing.T) { tell(t, seed+uint64(i)) })
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
	err := s.begin(ctx, 2+s.chance.IntN(3)/2)
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
	s.end(t)
	t.Logf("seed %d: %s; %s; %s", seed, strings.Join(s.done, ", "), s.tally(), time.Since(began).Round(100*time.Millisecond))
}

// A story is one farm and its controllers.
type story struct {
	t      *testing.T
	chance *rand.Rand
	duty   duty
	crew   []*crew
	places []place
	ca     *boulder.CA
	dns    *issuetest.DNS
	front  *http.Server
	asker  *controller.Controller // of the test: it asks, and does no work
	config controller.Config
	lines  io.Closer
	wished int
	failed int         // orders that the CA refused since nobody answered
	came   []time.Time // when each wish had come true
	healed time.Duration
	done   []string // the schedule
}

// A crew is one controller, its lines, and where it answers.
type crew struct {
	line    *line            // to the database
	nodes   map[string]*line // to each place, by where it is
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
	s.ca, err = boulder.Start(boulder.Options{DNS: s.dns.Address, HTTPPort: s.duty.CAPort, Limits: boulder.LetsEncryptLimits()})
	if err != nil {
		return err
	}
	if s.config, s.lines, err = s.duty.config(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	s.asker = controller.New(s.config)
	if err := s.build(ctx); err != nil {
		return err
	}
	to, err := url.Parse(s.duty.Database)
	if err != nil {
		return err
	}
	for range controllers {
		c := &crew{nodes: map[string]*line{}}
		s.crew = append(s.crew, c)
		if c.line, err = newLine(to.Host); err != nil {
			return err
		}
		for _, p := range s.places {
			for _, at := range []string{p.calls(), p.seen().endpoint.Addr().String()} {
				if c.nodes[at], err = newLine(at); err != nil {
					return err
				}
			}
		}
		if err := s.rise(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

// build makes two places of the three classes of fencing, and the secrets to them.
func (s *story) build(ctx context.Context) error {
	key, known, err := sshKey()
	if err != nil {
		return err
	}
	sorts := []func(*rand.Rand) (place, error){newHook, newVault, func(r *rand.Rand) (place, error) { return newFile(r, known) }}
	s.chance.Shuffle(len(sorts), func(i, j int) { sorts[i], sorts[j] = sorts[j], sorts[i] })
	for _, make := range sorts[:2] {
		p, err := make(rand.New(rand.NewPCG(s.chance.Uint64(), 0)))
		if err != nil {
			return err
		}
		s.places = append(s.places, p)
	}
	var errs []error
	for name, secret := range map[string]farm.Secret{hmacSecret: hmacKey(), tokenSecret: farm.NewSecret([]byte(token)), sshSecret: key} {
		errs = append(errs, s.asker.SetSecret(ctx, "several", name, secret, "test"))
	}
	return errors.Join(errs...)
}

// rise starts a controller's process and waits until it answers.
func (s *story) rise(ctx context.Context, c *crew) error {
	d := s.duty
	d.Owner, d.Ways = store.NewID("ctl"), map[string]string{}
	c.owner = d.Owner
	u, err := url.Parse(d.Database)
	if err != nil {
		return err
	}
	u.Host = c.line.address()
	q := u.Query()
	q.Set("application_name", s.name())
	u.RawQuery = q.Encode()
	d.Database = u.String()
	for at, l := range c.nodes {
		d.Ways[at] = l.address()
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	c.process = exec.CommandContext(context.WithoutCancel(ctx), os.Args[0])
	c.process.Env = append(os.Environ(), variable+"="+string(text), "GOMAXPROCS=1", "GOGC=400") // there are many on this machine
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

// farmYAML is the farm: one site on two places.
func (s *story) farmYAML() ([]byte, error) {
	targets, nodes := "", "{here: {local: true}"
	for i, p := range s.places {
		name := fmt.Sprintf("place%d", i)
		targets += "\n      - " + p.entry(name)
		if f, ok := p.(*file); ok {
			machine, err := f.machine()
			if err != nil {
				return nil, err
			}
			nodes += ", " + name + ": " + machine
		}
	}
	return fmt.Appendf(nil, `farm: several
resolvers: {".": [%q]}
issuers:
  ca:
    acme: %q
    contact: ["mailto:ops@shop.test"]
    roots: %q
    limits: {orders: 300 per 3h, domain: 50 per 7d, names: 5 per 7d, failures: 5 per 1h, exempt: none}
nodes: %s}
sites:
  shop:
    names: [shop.test]
    issuer: ca
    keys: [ec256]
    validation: {method: http-01, via: gateway}
    targets:%s
    policy: {canary: 1, soak: 0s, deadline: 20s, healthy_deadline: 5s, failure_budget: 0, drift: heal}
`, s.dns.Address, s.ca.Directory, s.ca.ListenRoots+s.ca.Roots, nodes, targets), nil
}

// hangUp ends what a controller that was killed has left behind in the database: it
// would be in the way when the schema is dropped.
func (s *story) hangUp() error {
	db, err := sql.Open("pgx", s.duty.Database)
	if err != nil {
		return err
	}
	_, err = db.Exec(`SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = $1`, s.name())
	return errors.Join(err, db.Close())
}

// name is what the story's controllers call themselves in the database.
func (s *story) name() string { return "certfarm " + s.t.Name() }

// end ends everything that was begun.
func (s *story) end(t *testing.T) {
	for _, c := range s.crew {
		if c.process != nil && c.process.Process != nil {
			_ = c.process.Process.Kill() // it may be dead
			_ = c.process.Wait()         // it says that it was killed
		}
		for _, l := range c.nodes {
			l.close()
		}
		if c.line != nil {
			c.line.close()
		}
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
	if err := s.hangUp(); err != nil {
		t.Error(err)
	}
	if s.ca != nil {
		_ = s.ca.Close()
	}
	if s.dns != nil {
		_ = s.dns.Close()
	}
}
