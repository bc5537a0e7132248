package several

import (
	"context"
	"log/slog"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/store"
	"github.com/certfarm/certfarm/internal/store/storetest"
)

// said has each line of a log.
type said chan string

func (s said) Write(text []byte) (int, error) {
	select {
	case s <- string(text):
	default: // nobody waits for more
	}
	return len(text), nil
}

// A controller that is cut from the database as it starts begins when it is there again.
func TestACutAtTheStart(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	to, err := url.Parse(storetest.Postgres(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := newLine(to.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	to.Host = l.address()
	lines := make(said, 1)
	d := duty{Database: to.String(), KeyFile: filepath.Join(t.TempDir(), "master.key")}
	config, closer, err := d.config(ctx, slog.New(slog.NewTextHandler(lines, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err != nil {
		t.Fatal(err)
	}
	l.sever()
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- controller.New(config).Run(running) }()
	select {
	case text := <-lines:
		t.Log(text)
	case err := <-ended:
		t.Fatalf("it ended: %v", err)
	}
	l.heal()
	for seats := 0; seats == 0; {
		if err := wait(ctx, lookEvery); err != nil {
			t.Fatal("it does not begin:", err)
		}
		err := config.Store.View(ctx, func(tx *store.Tx) error {
			all, err := tx.Seats(ctx)
			seats = len(all)
			return err
		})
		if err != nil {
			t.Log(err)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := closer.Close(); err != nil {
		t.Error(err)
	}
	if err := config.Store.Close(); err != nil {
		t.Error(err)
	}
}
