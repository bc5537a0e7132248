// Package several has several controllers work on one PostgreSQL, and treats them
// badly.
//
// Each controller is a process of its own: the test binary again. It reaches the
// database through a line of its own that can be cut. A story is a farm, two or
// three of them, and a schedule drawn by chance: kill one and start another, stop
// one with SIGSTOP in the middle of what it does and let it go on later, cut one
// from the database, with a word or without. What must be true in the end is in
// story_linux_test.go.
package several

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/secret"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// variable tells the test binary that it is to be a controller.
const variable = "CERTFARM_TEST_CONTROLLER"

// duty is what a controller's process is told.
type duty struct {
	Database, KeyFile, Owner string
	CAPort                   int
}

// pace is so quick that a lease ends while one waits.
func pace() controller.Pace {
	return controller.Pace{Look: 2 * time.Second, Late: time.Second, Retry: time.Second, Lease: 3 * time.Second}
}

func TestMain(m *testing.M) {
	told := os.Getenv(variable)
	if told == "" {
		os.Exit(storetest.Main(m))
	}
	var d duty
	err := json.Unmarshal([]byte(told), &d)
	if err == nil {
		err = d.serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "controller:", err)
		os.Exit(1)
	}
}

// config is a controller's, in the child and in the test.
func (d duty) config(ctx context.Context, log *slog.Logger) (c controller.Config, lines io.Closer, err error) {
	s, err := store.Open(ctx, d.Database, store.Options{})
	if err != nil {
		return c, nil, err
	}
	keys, err := secret.Load(secret.Source{File: d.KeyFile})
	if err != nil {
		return c, nil, err
	}
	c, lines = controller.Real(s, keys, log)
	c.Pace, c.CAPort, c.Owner = pace(), d.CAPort, d.Owner
	return c, lines, nil
}

// serve is the whole life of a controller. It ends with SIGTERM, or when the test
// that started it is gone.
func (d duty) serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() { // ends with the process
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(3)
	}()
	c, lines, err := d.config(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err != nil {
		return err
	}
	ctl := controller.New(c)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: ctl.ChallengeHandler(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = server.Serve(l) }() // ends with the process
	fmt.Println(l.Addr())
	err = ctl.Run(ctx)
	_ = lines.Close()   // the process ends
	_ = c.Store.Close() // so do its lines
	return err
}
