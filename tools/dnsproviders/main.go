// Dnsproviders writes down which of lego's DNS providers Certfarm links, and
// what each needs to know: package provider's constructors and its catalog.
//
// A provider is taken if all that it imports is lego's own or of a module named
// in clients: the vendors' large SDKs stay out. Run it by `go generate
// ./internal/prove/dns01/provider`.
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
)

const lego = "github.com/go-acme/lego/v5"

// clients are the modules that a provider may stand on: what is linked anyway,
// small helpers, and vendors' clients that bring nothing else along.
var clients = []string{
	"github.com/aws/aws-sdk-go-v2", // route53; ACM wants it anyway
	"github.com/cenkalti/backoff",
	"github.com/go-jose/go-jose",
	"github.com/go-viper/mapstructure",
	"github.com/google/go-querystring",
	"github.com/google/uuid",
	"github.com/hashicorp/go-retryablehttp",
	"github.com/infobloxopen/infoblox-go-client",
	"github.com/linode/linodego",
	"github.com/miekg/dns",
	"github.com/namedotcom/go",
	"github.com/nrdcg/auroradns", "github.com/nrdcg/bunny-go", "github.com/nrdcg/desec", "github.com/nrdcg/freemyip",
	"github.com/nrdcg/goacmedns", "github.com/nrdcg/goinwx", "github.com/nrdcg/mailinabox", "github.com/nrdcg/namesilo",
	"github.com/nrdcg/nodion", "github.com/nrdcg/porkbun", "github.com/nrdcg/vegadns",
	"github.com/nzdjb/go-metaname",
	"github.com/ovh/go-ovh",
	"github.com/pquerna/otp",
	"github.com/transip/gotransip",
	"github.com/vultr/govultr",
	"golang.org/x/net",
	"golang.org/x/oauth2",
	"golang.org/x/time",
	"gopkg.in/ns1/ns1-go.v2",
}

// without are the providers that are left out whatever they import.
var without = map[string]string{
	"exec":      "runs any program; Certfarm has its own, which runs only what the controller allows",
	"gandi":     "its API is gone; gandiv5 is the one",
	"lightsail": "wants a further SDK of its own",
	"manual":    "asks a person at a terminal",
}

// own are the providers whose API Certfarm speaks itself, with lego's settings:
// lego's clients bring a large SDK, and take away values of others.
var own = []string{"azuredns", "gcloud"}

// An Entry is what the catalog says of a provider; see package provider.
type Entry struct {
	Name       string    `json:"name"`
	Title      string    `json:"title"`
	Own        bool      `json:"own,omitzero"`
	Forgets    bool      `json:"forgets,omitzero"`
	Sequential bool      `json:"sequential,omitzero"`
	Settings   []Setting `json:"settings"`
}

// A Setting is one of lego's environment variables.
type Setting struct {
	Name       string `json:"name"`
	About      string `json:"about"`
	Default    string `json:"default,omitzero"`
	Ours       bool   `json:"ours,omitzero"` // the default is not lego's
	Credential bool   `json:"credential,omitzero"`
	Secret     bool   `json:"secret,omitzero"`
	File       bool   `json:"file,omitzero"`
}

func main() {
	to := flag.String("to", ".", "folder to write to")
	flag.Parse()
	if err := run(*to); err != nil {
		fmt.Fprintln(os.Stderr, "dnsproviders:", err)
		os.Exit(1)
	}
}

func run(to string) error {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", lego).Output()
	if err != nil {
		return fmt.Errorf("find lego's source: %w", err)
	}
	makers, catalog, err := generate(filepath.Join(strings.TrimSpace(string(out)), "providers", "dns"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(to, "lego_gen.go"), makers, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(to, "lego.json"), catalog, 0o644)
}

// generate gives the constructors as Go and the catalog as JSON.
func generate(root string) (makers, catalog []byte, err error) {
	files, err := filepath.Glob(filepath.Join(root, "*", "*.toml"))
	if err != nil {
		return nil, nil, err
	}
	var all []Entry
	for _, file := range files {
		name := filepath.Base(filepath.Dir(file))
		src, err := read(root, name)
		if err != nil {
			return nil, nil, err
		}
		mine := slices.Contains(own, name)
		if _, out := without[name]; out || (!mine && !src.stands()) {
			continue
		}
		e, err := entry(file)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", file, err)
		}
		e.Own, e.Forgets, e.Sequential = mine, src.forgets && !mine, src.sequential && !mine
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return cmp.Compare(a.Name, b.Name) })
	if makers, err = code(all); err != nil {
		return nil, nil, err
	}
	catalog, err = json.MarshalIndent(all, "", "\t")
	return makers, append(catalog, '\n'), err
}

// entry reads what lego says of a provider in its .toml file.
func entry(file string) (Entry, error) {
	var t struct {
		Name, Code    string
		Configuration struct{ Credentials, Additional map[string]string }
	}
	if _, err := toml.DecodeFile(file, &t); err != nil {
		return Entry{}, err
	}
	e := Entry{Name: t.Code, Title: t.Name}
	e.Settings = append(settings(t.Configuration.Credentials, true), settings(t.Configuration.Additional, false)...)
	return e, nil
}

func code(all []Entry) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "// Code generated by tools/dnsproviders; DO NOT EDIT.\n\npackage provider\n\nimport (\n\t%q\n", lego+"/challenge")
	for _, e := range all {
		if !e.Own {
			fmt.Fprintf(&b, "\t%q\n", lego+"/providers/dns/"+e.Name)
		}
	}
	b.WriteString(")\n\n// makers are lego's constructors, which read the environment.\nvar makers = map[string]func() (challenge.Provider, error){\n")
	for _, e := range all {
		if !e.Own {
			fmt.Fprintf(&b, "\t%q: made(%s.NewDNSProvider),\n", e.Name, e.Name)
		}
	}
	b.WriteString("}\n")
	return format.Source(b.Bytes())
}
