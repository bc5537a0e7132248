package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/certfarm/certfarm/internal/api/client"
	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/store"
)

// app is what the commands share: the user interface, and which farm of which
// controller is meant.
type app struct {
	*ui
	farm   string
	state  string
	remote struct{ socket, server, tokenFile, caFile string }
}

// asks gives a command the flags that say which controller is asked.
func (a *app) asks(c *cobra.Command) *cobra.Command {
	f := c.Flags()
	f.StringVar(&a.remote.socket, "socket", "", "unix socket of the controller (default: certfarm.sock in the state folder)")
	f.StringVar(&a.remote.server, "url", "", "URL of a controller's API, https://host:port")
	f.StringVar(&a.remote.tokenFile, "token-file", "", "file with the token for --url")
	f.StringVar(&a.remote.caFile, "ca-file", "", "PEM file of the CA that signed the certificate of --url")
	a.keeps(c)
	return c
}

// inFarm gives a command the flag that says which farm is meant, too.
func (a *app) inFarm(c *cobra.Command) *cobra.Command {
	c.Flags().StringVar(&a.farm, "farm", "", "name of the farm; not needed where there is only one")
	_ = c.RegisterFlagCompletionFunc("farm", a.complete(func(ctx context.Context, cl *client.Client) ([]string, error) { return cl.Farms(ctx) }))
	return a.asks(c)
}

// keeps gives a command the flag that says where the state is.
func (a *app) keeps(c *cobra.Command) {
	c.Flags().StringVar(&a.state, "state", stateFolder(), "folder of the database, the master key and the socket")
	_ = c.MarkFlagDirname("state") // there is such a flag
}

// stateFolder is where the state is unless someone says otherwise.
func stateFolder() string {
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" { // systemd.exec(5), StateDirectory=
		first, _, _ := strings.Cut(dir, ":")
		return first
	}
	if os.Geteuid() == 0 {
		return "/var/lib/certfarm"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "certfarm")
	}
	if runtime.GOOS == "windows" {
		if dir, err := os.UserConfigDir(); err == nil {
			return filepath.Join(dir, "certfarm")
		}
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "certfarm-state" // no home: in the folder at hand
	}
	return filepath.Join(home, ".local", "state", "certfarm")
}

func (a *app) socketPath() string {
	return cmp.Or(a.remote.socket, filepath.Join(a.state, "certfarm.sock"))
}

// connect makes a client of the controller that the flags name.
func (a *app) connect() (*client.Client, error) {
	c := client.Config{Socket: a.socketPath(), URL: a.remote.server, Actor: person()}
	if c.URL == "" {
		if a.remote.tokenFile != "" || a.remote.caFile != "" {
			return nil, usage("add --url https://host:port", "--token-file and --ca-file are for --url")
		}
		return client.New(c)
	}
	if a.remote.tokenFile == "" {
		return nil, usage("put the token into a file that only you may read", "--url needs --token-file")
	}
	token, err := os.ReadFile(a.remote.tokenFile)
	if err != nil {
		return nil, fmt.Errorf("token: %w", err)
	}
	c.Token = farm.NewSecret(bytes.TrimSpace(token))
	if a.remote.caFile != "" {
		if c.Roots, err = os.ReadFile(a.remote.caFile); err != nil {
			return nil, fmt.Errorf("CA: %w", err)
		}
	}
	return client.New(c)
}

// person names who sits at the terminal, for the journal.
func person() string {
	if who := os.Getenv("SUDO_USER"); who != "" {
		return who
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "local user"
}

// with connects, finds out which farm is meant, and runs f.
func (a *app) with(ctx context.Context, f func(*client.Client, string) error) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	defer c.Close()
	name, err := a.which(ctx, c)
	if err != nil {
		return err
	}
	return f(c, name)
}

// which farm is meant.
func (a *app) which(ctx context.Context, c *client.Client) (string, error) {
	if a.farm != "" {
		return a.farm, nil
	}
	all, err := c.Farms(ctx)
	switch {
	case err != nil:
		return "", err
	case len(all) == 0:
		return "", hinted(errors.New("there is no farm yet"), "`certfarm apply farm.yaml` makes one")
	case len(all) > 1:
		return "", usage("say which: --farm "+all[0], "there are %d farms: %s", len(all), strings.Join(all, ", "))
	}
	return all[0], nil
}

// meant adds to "not found" what there is.
func (a *app) meant(ctx context.Context, c *client.Client, kind, farmName, name string, err error) error {
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	hint := "`certfarm get " + kind + "` lists what there is"
	all, listErr := namesOf(ctx, c, kind, farmName)
	if listErr == nil && !slices.Contains(all, name) {
		if near := config.Meant(name, all); near != "" {
			hint = "did you mean " + near + "?"
		}
	}
	return hinted(err, hint)
}

// namesOf lists the names of things of a kind.
func namesOf(ctx context.Context, c *client.Client, kind, farmName string) ([]string, error) {
	k, ok := kindNamed(kind)
	if !ok {
		return nil, fmt.Errorf("there is no kind %q", kind)
	}
	l, err := k.list(ctx, c, farmName)
	return l.names, err
}

// completion is how cobra asks for words.
type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// complete offers words that the controller knows; where it does not answer,
// there are none.
func (a *app) complete(list func(context.Context, *client.Client) ([]string, error)) completion {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer c.Close()
		all, err := list(cmd.Context(), c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeNames offers the names of a kind as a command's first word.
func (a *app) completeNames(kind string) completion {
	return func(cmd *cobra.Command, given []string, toComplete string) ([]string, cobra.ShellCompDirective) {
		if len(given) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.complete(func(ctx context.Context, c *client.Client) ([]string, error) {
			name, err := a.which(ctx, c)
			if err != nil {
				return nil, err
			}
			return namesOf(ctx, c, kind, name)
		})(cmd, given, toComplete)
	}
}

// readFile reads a file, or standard input for "-".
func (a *app) readFile(name string, most int64) ([]byte, error) {
	in := a.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if int64(len(text)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes: it is some other file", name, most)
	}
	return text, nil
}
