package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
)

const (
	// idleVariable makes this program an idle controller on the store it names.
	idleVariable = "CERTFARM_BENCH_IDLE"
	claimed      = "claimed"
	restFor      = 10 * time.Second
	idleStarts   = 3
)

// measureIdle starts a controller in a process of its own on a store that keeps
// many certificates, none of them due, and on one that keeps a single one.
func measureIdle(ctx context.Context, dir string) ([]figure, error) {
	start := figure{name: "idle-start", unit: "s", goal: below(2, "s")}
	memory := figure{name: "idle-memory", unit: "MB", goal: below(150, "MB")}
	for _, side := range []struct {
		n             int
		start, memory *float64
	}{{1, &start.floor, &memory.floor}, {many, &start.value, &memory.value}} {
		path, err := filled(ctx, dir, side.n)
		if err != nil {
			return nil, err
		}
		var starts []float64
		for i := range idleStarts {
			took, rss, err := rest(ctx, path, i == idleStarts-1)
			if err != nil {
				return nil, err
			}
			starts = append(starts, took.Seconds())
			*side.memory = rss
		}
		*side.start = median(starts)
	}
	start.notes = []string{fmt.Sprintf("from exec to the first jobs claimed, median of %d; %d certificates and 1", idleStarts, many)}
	memory.notes = []string{fmt.Sprintf("resident after %s of rest", restFor)}
	return []figure{start, memory}, nil
}

// rest starts the controller, sees how long it takes to its first claim, and, if
// it may stay, how many MB (10^6 bytes) it takes up after a while of rest.
func rest(ctx context.Context, path string, stay bool) (took time.Duration, rss float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, 0, err
	}
	c := exec.CommandContext(ctx, self)
	c.Env = append(os.Environ(), idleVariable+"="+path)
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	if err := c.Start(); err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, in.Close(), c.Wait()) }()
	line, err := bufio.NewReader(out).ReadString('\n')
	took = time.Since(begin)
	if strings.TrimSpace(line) != claimed {
		return 0, 0, fmt.Errorf("the idle controller said %q: %w", line, err)
	}
	if !stay {
		return took, 0, nil
	}
	select {
	case <-time.After(restFor):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	rss, err = resident(c.Process.Pid)
	return took, rss, err
}

// resident is how much memory a process takes up, in MB (proc(5)).
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		var kib float64
		if _, err := fmt.Sscanf(line, "VmRSS: %f kB", &kib); err == nil {
			return kib * 1024 / 1e6, nil
		}
	}
	return 0, errors.New("/proc says no VmRSS")
}

// idle is the controller that is measured: it works on the store at path, says
// when it has claimed its first jobs, and ends with its standard input. Those
// first jobs are what every controller arms at its start; arming them is the
// first commit, so the second is the claim.
func idle(path string) (err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	commits := 0
	var mu sync.Mutex
	s, err := store.Open(ctx, path, store.Options{Observe: func(_ context.Context, point string) error {
		mu.Lock()
		defer mu.Unlock()
		if point == "commit" {
			if commits++; commits == 2 {
				fmt.Println(claimed)
			}
		}
		return nil
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	config, lines := controller.Real(s, secret.Fresh(), nil)
	defer func() { err = errors.Join(err, lines.Close()) }()
	defer running(ctx, controller.New(config), &err)()
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}
