package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/controller"
	"github.com/certfarm/certfarm/internal/encode"
	"github.com/certfarm/certfarm/internal/farm"
)

// maxSecret is more than any key or credential takes.
const maxSecret = 512 << 10

func newSecret(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "secret set|list|rm", GroupID: groupFarm, Short: "Seal the secrets that farm.yaml names",
		Long: `A farm.yaml names secrets and never holds one: key: {secret: deploy-key}. Here
they are given to the controller, which seals them under its master key. Nothing
prints one again; a generated one is shown once, if that is asked for.`,
		Example: `certfarm secret set deploy-key --file id_ed25519
certfarm secret set eab-hmac < hmac.txt
certfarm secret list`,
	}, newSecretSet(a), newSecretList(a), newSecretRemove(a))
}

func newSecretSet(a *app) *cobra.Command {
	var file string
	var generate, show bool
	c := a.inFarm(&cobra.Command{
		Use: "set NAME", Short: "Seal a secret, from a file, standard input or the terminal",
		Long: `Set reads the secret from --file, from standard input where that is no terminal,
or asks for it without showing it. A line end after the last line is dropped,
unless the secret has several lines.

With --generate it makes a password of 26 letters and digits (128 random bits),
for a certificate store or a key file, and prints nothing of it. With --show it
is shown on the terminal, once, for whoever sets up the other side.`,
		Example: "certfarm secret set deploy-key --file id_ed25519\nprintf %s \"$(pass show eab)\" | certfarm secret set eab-hmac\n" +
			"certfarm secret set ccs-password --generate --show",
		Args: args(1, 1, "the name of a secret"),
		RunE: func(cmd *cobra.Command, given []string) error {
			switch {
			case generate && file != "":
				return usage("leave one of them out", "a secret is generated or read from a file, not both")
			case generate:
				return a.generateSecret(cmd.Context(), given[0], show)
			case show:
				return usage("add --generate", "--show shows a secret that is made here, and no other")
			}
			value, err := a.secretValue(file, given[0])
			if err != nil {
				return err
			}
			return a.withNew(cmd.Context(), func(c *client.Client, farmName string) error {
				return a.setSecret(cmd.Context(), c, farmName, given[0], value)
			})
		},
	})
	c.Flags().StringVar(&file, "file", "", "file with the secret, - for standard input")
	c.Flags().BoolVar(&generate, "generate", false, "make a new password; an older one of the name is not replaced")
	c.Flags().BoolVar(&show, "show", false, "with --generate: show it on the terminal, once")
	return c
}

func (a *app) setSecret(ctx context.Context, c *client.Client, farmName, name string, value farm.Secret) error {
	if err := c.SetSecret(ctx, farmName, name, value); err != nil {
		return err
	}
	return a.done("secret", map[string]any{"name": name, "farm": farmName}, "Secret %s of farm %s is sealed.", name, farmName)
}

// generateSecret makes a password and seals it. One that is there already is not
// replaced: whatever was set up with it would be shut out, and nobody could read
// the old one any more.
func (a *app) generateSecret(ctx context.Context, name string, show bool) error {
	if show && (a.json || !isTerminal(a.err)) {
		return usage("leave --show out, or run it on a terminal without --json", "a secret is shown on a terminal only, where no file or log keeps it")
	}
	return a.withNew(ctx, func(c *client.Client, farmName string) error {
		all, err := c.Secrets(ctx, farmName)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(all, func(s controller.SecretInfo) bool { return s.Name == name }) {
			return hinted(fmt.Errorf("secret %s of farm %s is there already, and nobody could read it any more", name, farmName),
				"generate one under another name, and change farm.yaml when the other side has it; or `certfarm secret rm "+name+"` first")
		}
		value := encode.NewPFXPassword()
		if err := a.setSecret(ctx, c, farmName, name, value); err != nil || !show {
			return err
		}
		a.say("%s", value.Reveal())
		a.say("This is shown once: give it to the other side now, and clear the screen.")
		return nil
	})
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
