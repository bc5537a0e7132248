package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/farm"
)

func newRekey(a *app) *cobra.Command {
	var k keeping
	c := a.asks(&cobra.Command{
		Use: "rekey", GroupID: groupState, Short: "Make a new master key and seal everything under it",
		Long: `Rekey makes a new master key, seals every key and secret in the database under
it, and forgets the old one. It is done by the controller, or here where none
runs. Where it is stopped on the way, the file holds both keys: run it again.

Backups made before need the old key: copy its file first if you keep any.`,
		Example: "certfarm rekey\ncertfarm rekey --state /srv/certfarm",
		Args:    args(0, 0, "nothing"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			n, err := a.rekey(cmd.Context(), k)
			if err != nil {
				return err
			}
			return a.done("rekeyed", map[string]any{"records": n}, "%s sealed under a new master key.", farm.Count(n, "record"))
		},
	})
	k.flags(c)
	return c
}

func (a *app) rekey(ctx context.Context, k keeping) (int, error) {
	cl, err := a.connect()
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	n, err := cl.Rekey(ctx)
	if !errors.Is(err, client.ErrNotRunning) || a.remote.server != "" {
		return n, err
	}
	h, err := a.open(ctx, k, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	n, err = controller.New(h.Config).Rekey(ctx, person())
	return n, errors.Join(err, h.Close())
}
