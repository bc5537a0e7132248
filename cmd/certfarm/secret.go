package main

import (
	"bytes"
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/farm"
)

// maxSecret is more than any key or credential takes.
const maxSecret = 512 << 10

func newSecret(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "secret set|list|rm", GroupID: groupFarm, Short: "Seal the secrets that farm.yaml names",
		Long: `A farm.yaml names secrets and never holds one: key: {secret: deploy-key}. Here
they are given to the controller, which seals them under its master key. Nothing
prints one again.`,
		Example: `certfarm secret set deploy-key --file id_ed25519
certfarm secret set eab-hmac < hmac.txt
certfarm secret list`,
	}, newSecretSet(a), newSecretList(a), newSecretRemove(a))
}

func newSecretSet(a *app) *cobra.Command {
	var file string
	c := a.inFarm(&cobra.Command{
		Use: "set NAME", Short: "Seal a secret, from a file, standard input or the terminal",
		Long: `Set reads the secret from --file, from standard input where that is no terminal,
or asks for it without showing it. A line end after the last line is dropped,
unless the secret has several lines.`,
		Example: "certfarm secret set deploy-key --file id_ed25519\nprintf %s \"$(pass show eab)\" | certfarm secret set eab-hmac",
		Args:    args(1, 1, "the name of a secret"),
		RunE: func(cmd *cobra.Command, given []string) error {
			value, err := a.secretValue(file, given[0])
			if err != nil {
				return err
			}
			return a.withNew(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.SetSecret(cmd.Context(), farmName, given[0], value); err != nil {
					return err
				}
				return a.done("secret", map[string]any{"name": given[0], "farm": farmName}, "Secret %s of farm %s is sealed.", given[0], farmName)
			})
		},
	})
	c.Flags().StringVar(&file, "file", "", "file with the secret, - for standard input")
	return c
}

// withNew is with, for a farm that may not be there yet: its secrets come first.
func (a *app) withNew(ctx context.Context, f func(*client.Client, string) error) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	all, err := c.Farms(ctx)
	if err != nil {
		return err
	}
	if a.farm == "" && len(all) == 0 {
		return usage("say for which it will be: --farm NAME", "there is no farm yet")
	}
	name, err := a.which(ctx, c)
	if err != nil {
		return err
	}
	return f(c, name)
}

func (a *app) secretValue(file, name string) (farm.Secret, error) {
	if file == "" && isTerminal(a.in) {
		return a.hidden("Secret " + name)
	}
	if file == "" {
		file = "-"
	}
	text, err := a.readFile(file, maxSecret)
	if err != nil {
		return farm.Secret{}, err
	}
	return farm.NewSecret(oneLineSecret(text)), nil
}

// oneLineSecret drops the line end of a secret of one line. A key in PEM keeps
// its own.
func oneLineSecret(text []byte) []byte {
	if trimmed := bytes.TrimRight(text, "\r\n"); !bytes.ContainsRune(trimmed, '\n') {
		return trimmed
	}
	return text
}

// hidden asks for a secret on the terminal without showing it.
func (a *app) hidden(what string) (farm.Secret, error) {
	f, ok := a.in.(*os.File)
	if !ok || !isTerminal(f) {
		return farm.Secret{}, usage("name a file that holds it", "%s is needed, and there is nobody to ask", what)
	}
	fmt.Fprintf(a.err, "%s (not shown): ", what)
	text, err := term.ReadPassword(int(f.Fd()))
	a.say("")
	if err != nil {
		return farm.Secret{}, fmt.Errorf("read from the terminal: %w", err)
	}
	return farm.NewSecret(text), nil
}

func newSecretList(a *app) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "list", Short: "List the names of the secrets", Args: args(0, 0, "nothing"),
		Example: "certfarm secret list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			k, _ := kindNamed("secrets")
			return a.with(cmd.Context(), func(c *client.Client, farmName string) error { return a.show(cmd.Context(), c, k, farmName, "") })
		},
	})
}

func newSecretRemove(a *app) *cobra.Command {
	return a.inFarm(&cobra.Command{
		Use: "rm NAME", Short: "Forget a secret", Args: args(1, 1, "the name of a secret"), ValidArgsFunction: a.completeNames("secret"),
		Example: "certfarm secret rm old-key",
		RunE: func(cmd *cobra.Command, given []string) error {
			return a.withNew(cmd.Context(), func(c *client.Client, farmName string) error {
				if err := c.RemoveSecret(cmd.Context(), farmName, given[0]); err != nil {
					return a.meant(cmd.Context(), c, "secrets", farmName, given[0], err)
				}
				return a.done("secret", map[string]any{"name": given[0], "removed": true}, "Secret %s is removed.", given[0])
			})
		},
	})
}
