package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/agent"
	"github.com/certfarm/certfarm/internal/deploy/remote"
	"github.com/certfarm/certfarm/internal/deploy/target"
	"github.com/certfarm/certfarm/internal/fence"
	"github.com/certfarm/certfarm/internal/host"
	"github.com/certfarm/certfarm/internal/host/hosttest"
)

// agentsVariable makes this program the agents, as the JSON in it says.
const agentsVariable = "CERTFARM_BENCH_AGENTS"

// What every agent's node has.
const (
	agentsName    = "shop.example.net"
	agentsFolder  = "/etc/tls"
	agentsOptions = `{"pem":"/etc/tls/shop.pem"}`
	flapFor       = 300 * time.Millisecond
)

// agentsSpec says which agents run.
type agentsSpec struct {
	Dir      string
	Server   string
	Running  int // the first so many
	Flapping int // the last of these
}

func agentName(i int) string { return fmt.Sprintf("n%04d", i) }

func (s agentsSpec) state(i int) string { return filepath.Join(s.Dir, agentName(i)) }

// people are the agents, in a process of their own.
type people struct {
	cmd  *exec.Cmd
	in   io.Closer
	read chan error

	mu    sync.Mutex
	acted map[string]time.Time // by call
	more  chan struct{}        // closed when there is one more
}

// start starts the agents.
func (c *crowd) start(ctx context.Context, spec agentsSpec) (*people, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, err
	}
	p := &people{cmd: exec.CommandContext(ctx, self), read: make(chan error, 1), acted: map[string]time.Time{}, more: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), agentsVariable+"="+string(text))
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { p.read <- p.listen(out) }()
	return p, nil
}

// listen notes what they have done.
func (p *people) listen(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var id string
		var at int64
		if _, err := fmt.Sscan(lines.Text(), &id, &at); err != nil {
			return fmt.Errorf("the agents said %q: %w", lines.Text(), err)
		}
		p.mu.Lock()
		p.acted[id] = time.Unix(0, at)
		close(p.more)
		p.more = make(chan struct{})
		p.mu.Unlock()
	}
	return lines.Err()
}

// done says when a call was done, as soon as that is known.
func (p *people) done(ctx context.Context, id string) (time.Time, error) {
	for {
		p.mu.Lock()
		at, ok := p.acted[id]
		more := p.more
		p.mu.Unlock()
		if ok {
			return at, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return at, fmt.Errorf("call %s was not done: %w", id, ctx.Err())
		}
	}
}

// resident is what this process and theirs take up, in MB.
func (p *people) resident() (own, theirs float64, err error) {
	own, err = resident(os.Getpid())
	theirs, also := resident(p.cmd.Process.Pid)
	return own, theirs, errors.Join(err, also)
}

// processorTime is how much of the processors this process has used (proc(5), fields 14
// and 15 of stat, in hundredths of a second).
func processorTime() (time.Duration, error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ") // the name may have spaces
	all := strings.Fields(after)
	if len(all) < 13 {
		return 0, fmt.Errorf("/proc says %q", text)
	}
	user, err := strconv.Atoi(all[11])
	system, also := strconv.Atoi(all[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, also)
}

func (p *people) end() error {
	err := p.in.Close()
	return errors.Join(err, <-p.read, p.cmd.Wait())
}

// runAgents is the process of the agents; it ends with its standard input.
func runAgents(text string) error {
	var spec agentsSpec
	if err := json.Unmarshal([]byte(text), &spec); err != nil {
		return err
	}
	ctx, end := context.WithCancel(context.Background())
	defer end()
	say := &sayer{to: bufio.NewWriter(os.Stdout)}
	var loops sync.WaitGroup
	errs := make([]error, spec.Running)
	for i := range spec.Running {
		loops.Go(func() {
			if errs[i] = spec.run(ctx, i, say); errs[i] != nil {
				fmt.Fprintln(os.Stderr, "agent", i, errs[i])
			}
		})
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	end()
	loops.Wait()
	return errors.Join(append(errs, err)...)
}

// run is one agent, with a node in memory, until ctx ends; one that flaps comes and
// goes.
func (s agentsSpec) run(ctx context.Context, i int, say *sayer) error {
	var node hosttest.Mem
	if err := node.Mkdir(ctx, agentsFolder, host.Attr{Mode: 0o755}); err != nil {
		return err
	}
	policy := fence.Policy{
		Node: agentName(i), Farm: benchFarm, Names: []string{agentsName}, Kinds: []string{"files"},
		Folders: []string{agentsFolder, "/var/lib/certfarm"}, Activations: 1 << 20,
	}
	a, err := agent.NewAnswerer(agent.AnswererSetup{
		Kinds: target.All(), Host: &node, State: s.state(i), Policy: func() (fence.Policy, error) { return policy, nil },
	})
	if err != nil {
		return err
	}
	for first := true; first || ctx.Err() == nil; first = false {
		life, end := context.WithCancel(ctx)
		if i >= s.Running-s.Flapping {
			life, end = context.WithTimeout(ctx, flapFor)
		}
		err := s.live(life, i, said{a, say})
		end()
		if err != nil {
			return err
		}
	}
	return nil
}

// live is one process of an agent.
func (s agentsSpec) live(ctx context.Context, i int, a remote.Answerer) error {
	id, err := agent.LoadIdentity(s.state(i))
	if err != nil {
		return err
	}
	id.Servers = []string{s.Server}
	l, err := agent.NewLoop(agent.LoopSetup{Identity: id, State: s.state(i), Answerer: a, Pace: agent.Pace{Grace: time.Millisecond}})
	if err != nil {
		return err
	}
	return l.Run(ctx)
}

// said says when an agent has done a call.
type said struct {
	remote.Answerer
	say *sayer
}

// Answer does it.
func (s said) Answer(ctx context.Context, c remote.Call) remote.Answer {
	answer := s.Answerer.Answer(ctx, c)
	s.say.line(c.ID, time.Now())
	return answer
}

// A sayer writes lines.
type sayer struct {
	mu sync.Mutex
	to *bufio.Writer
}

func (s *sayer) line(id string, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.to, id, at.UnixNano())
	_ = s.to.Flush() // who listened is gone
}
