package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/certfarm/certfarm/internal/farm"
)

var update = flag.Bool("update", false, "write the .want files and schema.json anew")

// vocabulary is a small one: `nginx` wants a pem, `files` a chain.
func vocabulary(inline bool) Vocabulary {
	return Vocabulary{
		Impossible: func(s farm.Site) string {
			if s.Profile == "shortlived" && len(s.Policy.Windows) > 0 {
				return "a week is longer than three days"
			}
			return ""
		},
		Kinds: map[string]Kind{
			"nginx": kind("nginx", "pem", "chain", "key", "test", "reload", "start", "rsa", "more", "password"),
			"files": kind("", "pem", "chain", "key", "reload"),
			"share": {Nodeless: true, OnReaders: func(raw []byte) bool { return bytes.Contains(raw, []byte("/served/")) }, Options: []string{"pem"}, Secrets: []string{"password"}, Places: placesOf, Check: func(raw []byte, secrets []string) (string, string, []byte, error) {
				if len(secrets) == 0 {
					return "", "", nil, &testOptionError{"", "the secret password is missing", "set it"}
				}
				return kind("").Check(raw, secrets)
			}},
		},
		DNS: map[string]Provider{
			"rfc2136": {Options: []string{"server"}, Secrets: []string{"key"}, Check: writer},
			"builtin": {Options: []string{"zone"}, Check: writer},
		},
		Receivers: map[string]Provider{
			"mail":  {Options: []string{"server"}, Secrets: []string{"key"}, Check: writer},
			"slack": {Secrets: []string{"url"}, Check: func([]byte, []string) ([]byte, error) { return []byte("{}"), nil }},
		},
		StartTLS:      []string{"smtp", "imap"},
		InlineSecrets: inline,
	}
}

// testOptions are the options of the kinds in these tests.
type testOptions struct {
	Pem      string   `json:"pem,omitempty"`
	Chain    string   `json:"chain,omitempty"`
	Key      string   `json:"key,omitempty"`
	Test     []string `json:"test,omitempty"`
	Reload   []string `json:"reload,omitempty"`
	Start    []string `json:"start,omitempty"`
	Password string   `json:"password,omitempty"`
	RSA      struct {
		Pem string `json:"pem,omitempty"`
	} `json:"rsa,omitzero"`
	More []struct {
		Pem string `json:"pem"`
	} `json:"more,omitempty"`
}

// writer takes a server or a zone, and a key.
func writer(raw []byte, secrets []string) ([]byte, error) {
	var o struct{ Server, Zone string }
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return nil, err
	}
	if o.Server != "" && len(secrets) == 0 {
		return nil, &testOptionError{"server", "there is no key for it", "set one: secrets: {key: {secret: NAME}}"}
	}
	return json.Marshal(o)
}

type testOptionError struct{ field, problem, hint string }

func (e *testOptionError) Error() string { return e.field + ": " + e.problem }

func (e *testOptionError) Option() (field, problem, hint string) { return e.field, e.problem, e.hint }

func kind(group string, names ...string) Kind {
	return Kind{Options: names, Places: placesOf, Check: func(raw []byte, _ []string) (string, string, []byte, error) {
		var o testOptions
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil {
			return "", "", nil, err
		}
		switch {
		case o.Pem == "" && o.Chain == "":
			return "", "", nil, &testOptionError{"pem", "a path is needed", "give pem, or chain and key"}
		case !strings.HasPrefix(o.Pem+o.Chain, "/"):
			return "", "", nil, &testOptionError{"pem", "the path is not absolute", ""}
		case o.Password == "refuse-me":
			return "", "", nil, &testOptionError{"password", "it is too short", ""}
		}
		canonical, err := json.Marshal(o)
		return "file " + o.Pem + o.Chain, group, canonical, err
	}}
}

// placesOf are a test target's files.
func placesOf(canonical []byte) (all []string) {
	var o testOptions
	if err := json.Unmarshal(canonical, &o); err != nil {
		panic(err) // Check made it
	}
	files := []string{o.Pem, o.Chain, o.Key}
	for _, m := range o.More {
		files = append(files, m.Pem)
	}
	for _, f := range files {
		if f != "" {
			all = append(all, "file "+f)
		}
	}
	return all
}

// golden compares got with the .want file beside a test's input.
func golden(t *testing.T, input, got string) {
	t.Helper()
	name := strings.TrimSuffix(input, ".yaml") + ".want"
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", name, d)
	}
}

func inputs(t testing.TB, folder string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
	if err != nil || len(all) == 0 {
		t.Fatal("no test data:", err)
	}
	return all
}

func TestValid(t *testing.T) {
	for _, name := range inputs(t, "valid") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			p, err := Parse(text, "farm.yaml", vocabulary(strings.Contains(name, "inline")))
			if err != nil {
				t.Fatal(err)
			}
			got, err := json.MarshalIndent(p.Farm, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden(t, name, string(got)+"\n")
			holds(t, p)
		})
	}
}

func TestInvalid(t *testing.T) {
	for _, name := range inputs(t, "invalid") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse(text, "farm.yaml", vocabulary(false))
			ms, ok := errors.AsType[Mistakes](err)
			if !ok {
				t.Fatalf("want mistakes, got %v", err)
			}
			var all strings.Builder
			for _, m := range ms {
				all.WriteString(m.Error() + "\n")
			}
			golden(t, name, all.String())
			noSecrets(t, ms)
		})
	}
}

// noSecrets: whatever looks like hunter2… in a test file is a secret.
func noSecrets(t *testing.T, ms Mistakes) {
	t.Helper()
	out, err := json.Marshal(ms)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{string(out), ms.Error()} {
		if strings.Contains(shown, "hunter2") {
			t.Errorf("a secret is shown:\n%s", shown)
		}
	}
}

func TestMissing(t *testing.T) {
	text, err := os.ReadFile("testdata/valid/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(text, "farm.yaml", vocabulary(false))
	if err != nil {
		t.Fatal(err)
	}
	ms := p.Missing(func(name string) bool { return name != "le-hmac" })
	if len(ms) != 1 || !strings.HasSuffix(ms[0].Hint, " --farm "+p.Farm.Name) {
		t.Errorf("there may be no such farm yet, so the hint names it: %+v", ms)
	}
	if len(ms) != 1 || ms[0].Path != "issuers.letsencrypt.eab.hmac.secret" || !strings.Contains(ms[0].Picture, "le-hmac") {
		t.Errorf("got %+v", ms)
	}
	if ms := p.Missing(func(string) bool { return true }); ms != nil {
		t.Errorf("nothing is missing, got %v", ms)
	}
}
