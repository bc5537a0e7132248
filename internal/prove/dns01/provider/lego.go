package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/certfarm/certfarm/internal/config"
	"github.com/certfarm/certfarm/internal/prove/dns01"
)

// lego lists the providers of the catalog, by name.
func lego() (all []dns01.Provider) {
	known, h := catalog(), newHouse()
	for _, name := range slices.Sorted(maps.Keys(known)) {
		all = append(all, known[name].provider(h))
	}
	return all
}

func (e entry) provider(h *house) dns01.Provider {
	p := dns01.Provider{
		Name:    e.Name,
		About:   e.Title,
		Docs:    "https://go-acme.github.io/lego/dns/" + e.Name + "/",
		Forgets: e.forgets(),
		Check:   e.check,
		New: func(_ context.Context, s dns01.Setup) (dns01.Writer, error) {
			return newLegoWriter(e, h, s)
		},
	}
	for _, s := range e.Settings {
		p.Settings = append(p.Settings, dns01.Setting{Name: s.Name, About: s.About, Default: s.Default, Secret: s.Secret})
	}
	return p
}

// forgets reports whether only the process that put a record up can take it away.
func (e entry) forgets() bool {
	_, known := owns[e.Name]
	return e.Forgets && !known
}

// setting finds one by name.
func (e entry) setting(name string) (setting, bool) {
	i := slices.IndexFunc(e.Settings, func(s setting) bool { return s.Name == name })
	if i < 0 {
		return setting{}, false
	}
	return e.Settings[i], true
}

func (e entry) names(want func(setting) bool) (names []string) {
	for _, s := range e.Settings {
		if want(s) {
			names = append(names, s.Name)
		}
	}
	return names
}

// ambient are the providers that may find credentials where they run: the role of
// a machine at the vendor, or an account that is made on the way.
var ambient = []string{"acmedns", "azuredns", "gcloud", "route53"}

// check holds options and the names of secrets to the catalog. Which settings
// belong together lego only says in prose, so the helper's first call tells the
// rest. Defaults that are lego's own are not filled in.
func (e entry) check(options []byte, secrets []string) ([]byte, error) {
	given, err := values(options)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch s, known := e.setting(name); {
		case !known:
			return nil, e.unknown(name, "an option")
		case s.Secret:
			return nil, &optionError{name, "this is a secret, and farm.yaml holds none",
				"set it with `certfarm secret set` and name it under secrets"}
		}
	}
	for _, name := range secrets {
		if _, known := e.setting(name); !known {
			return nil, e.unknown(name, "a secret")
		}
		if _, twice := given[name]; twice {
			return nil, &optionError{name, "this stands under options and under secrets", "one of them is enough"}
		}
	}
	if err := e.anyCredential(given, secrets); err != nil {
		return nil, err
	}
	for _, s := range e.Settings {
		if _, said := given[s.Name]; s.Ours && !said {
			given[s.Name] = s.Default
		}
	}
	return json.Marshal(given)
}

func (e entry) unknown(name, what string) error {
	all := e.names(func(setting) bool { return true })
	hint := "`certfarm dns providers " + e.Name + "` lists them"
	if meant := config.Meant(name, all); meant != "" {
		hint = "did you mean " + meant + "?"
	}
	return &optionError{name, "this is not " + what + " of " + e.Name, hint}
}

// anyCredential refuses settings that do not say who we are.
func (e entry) anyCredential(given map[string]string, secrets []string) error {
	want := e.names(func(s setting) bool { return s.Secret })
	if len(want) == 0 || slices.Contains(ambient, e.Name) {
		return nil
	}
	has := func(name string) bool { return given[name] != "" || slices.Contains(secrets, name) }
	if slices.ContainsFunc(want, has) {
		return nil
	}
	return &optionError{"", "no credential is given",
		"name one under secrets: " + strings.Join(want, ", ") + "; see `certfarm dns providers " + e.Name + "`"}
}

// values reads options, whose values are texts, numbers or truth values, as the
// texts that lego reads from its environment.
func values(options []byte) (map[string]string, error) {
	given := map[string]string{}
	if len(bytes.TrimSpace(options)) == 0 {
		return given, nil
	}
	d := json.NewDecoder(bytes.NewReader(options))
	d.UseNumber()
	var raw map[string]any
	if err := d.Decode(&raw); err != nil {
		return nil, fmt.Errorf("read the options: %w", err)
	}
	for name, v := range raw {
		switch v := v.(type) {
		case string:
			given[name] = v
		case json.Number, bool:
			given[name] = fmt.Sprint(v)
		default:
			return nil, &optionError{name, "this should be a text, a number, or true or false", ""}
		}
		if strings.ContainsRune(given[name], 0) {
			return nil, &optionError{name, "there is a zero byte in it", ""}
		}
	}
	return given, nil
}

// errNoHelper is a mistake in the program.
var errNoHelper = errors.New("no command is known that runs a DNS provider's API")
