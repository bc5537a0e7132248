package lab

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A process is a real server of this machine, with a configuration of its own, in
// the foreground and in a process group of its own. It is a daemon and a service.
//
// Its lives are ours: it is started by commands of its node and ended when its
// machine loses its power or the lab ends. It may also end by itself, as Apache does
// of a wrong key.
type process struct {
	c    processConfig
	addr string
	port *port // nil: somebody else's
	log  *log.Logger
	turn sync.Mutex // held by the command that runs

	mu      sync.Mutex
	life    *life // nil: it does not run
	powered bool
	resumes bool // it ran when the power went
	fault   Kind
}

// processConfig is what a process is made of.
type processConfig struct {
	name string
	test []string // command that checks the configuration; empty: none
	run  []string // command that serves in the foreground
	// again makes it read its files anew.
	again func(ctx context.Context, p *os.Process) error
	log   *os.File // the server's outputs, and what happens to it
	died  func()   // the fault dies-for-good has struck
}

// A life is one run of the program.
type life struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// The times that a server has to answer, and to end.
const (
	answerTime = 20 * time.Second
	endTime    = 5 * time.Second
)

// errEnded says that a server ended instead of serving.
var errEnded = errors.New("it ended at once; its log says why")

// newProcess makes a server that is stopped, on an address of its own. Configure
// writes its configuration for that address.
func newProcess(c processConfig, configure func(addr string) error) (*process, error) {
	p := &process{c: c, powered: true, log: log.New(c.log, "lab: ", log.LstdFlags)}
	var err error
	p.port, err = reserve(func(addr string) error {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
		if err != nil {
			return err
		}
		p.addr = addr
		return l.Close()
	})
	if err != nil {
		return nil, err
	}
	if err := configure(p.addr); err != nil {
		return nil, errors.Join(fmt.Errorf("configure %s: %w", c.name, err), p.port.Close())
	}
	return p, nil
}

func (p *process) address() string { return p.addr }

func (p *process) up() bool { return p.alive() != nil }

func (p *process) alive() *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered {
		return nil
	}
	return p.life
}

func (p *process) setFault(k Kind) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = k
}

func (p *process) faulty(k Kind) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault == k
}

// check asks the program whether it could start with what is there.
func (p *process) check(ctx context.Context) error {
	if len(p.c.test) == 0 {
		return nil
	}
	return runs(ctx, p.c.test)
}

// runs runs a program of this machine; its error is what the program said.
func runs(ctx context.Context, argv []string) error {
	text, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w", strings.TrimSpace(string(text)), err)
	}
	return nil
}

// start starts the server, where it does not run, and waits until it answers.
func (p *process) start(ctx context.Context) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.up() {
		return nil
	}
	if err := p.launch(ctx); err != nil {
		return err
	}
	p.strike()
	return nil
}

func (p *process) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	l, err := p.begin()
	if err != nil {
		return err
	}
	for {
		if err := answers(ctx, p.addr); err == nil {
			return nil
		}
		select {
		case <-l.ended:
			return fmt.Errorf("start %s: %w", p.c.name, errEnded)
		case <-time.After(10 * time.Millisecond): // servers send no event
		case <-ctx.Done():
			return fmt.Errorf("start %s: it does not answer at %s: %w", p.c.name, p.addr, ctx.Err())
		}
	}
}

// begin starts the program.
func (p *process) begin() (*life, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.powered {
		return nil, fmt.Errorf("start %s: the machine is off", p.c.name)
	}
	l := &life{cmd: exec.Command(p.c.run[0], p.c.run[1:]...), ended: make(chan struct{})}
	l.cmd.Stdout, l.cmd.Stderr = p.c.log, p.c.log
	ownGroup(l.cmd)
	if err := l.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.c.name, err)
	}
	p.life = l
	p.log.Printf("started %s", p.c.name)
	go func() {
		err := l.cmd.Wait()
		p.log.Printf("%s ended: %v", p.c.name, err)
		p.mu.Lock()
		if p.life == l {
			p.life = nil
		}
		p.mu.Unlock()
		close(l.ended)
	}()
	return l, nil
}

// answers reports that something listens.
func answers(ctx context.Context, addr string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// reload makes the server read its files anew.
func (p *process) reload(ctx context.Context) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	l := p.alive()
	if l == nil {
		return errNoServer
	}
	if p.faulty(BadReload) {
		return nil
	}
	if err := p.c.again(ctx, l.cmd.Process); err != nil {
		return fmt.Errorf("reload %s: %w", p.c.name, err)
	}
	if p.faulty(DiesOnReload) {
		return p.halt(ctx, l)
	}
	p.strike()
	return nil
}

// strike ends the node where that is its fault.
func (p *process) strike() {
	if p.faulty(DiesForGood) {
		p.c.died()
	}
}

// halt kills the server and waits until nobody listens: its children end a moment
// later than it does.
func (p *process) halt(ctx context.Context, l *life) error {
	killGroup(l.cmd.Process)
	<-l.ended
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	for answers(ctx, p.addr) == nil {
		if err := wait(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("kill %s: %s still answers: %w", p.c.name, p.addr, err)
		}
	}
	return nil
}

func (p *process) power(on bool) error {
	p.mu.Lock()
	if on == p.powered {
		p.mu.Unlock()
		return nil
	}
	p.powered = on
	l, resume := p.life, p.resumes
	p.resumes = !on && l != nil
	p.mu.Unlock()
	switch {
	case !on && l != nil:
		return p.halt(context.Background(), l)
	case on && resume: // as at boot
		if err := p.launch(context.Background()); err != nil {
			p.log.Printf("%v", err)
		}
	}
	return nil
}

// close ends the server: politely, then not.
func (p *process) close() error {
	p.mu.Lock()
	p.powered = false
	l := p.life
	p.mu.Unlock()
	if l != nil {
		askToEnd(l.cmd.Process)
		select {
		case <-l.ended:
		case <-time.After(endTime):
			killGroup(l.cmd.Process)
			<-l.ended
		}
	}
	if p.port == nil {
		return nil
	}
	return p.port.Close()
}
