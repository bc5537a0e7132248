package config

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
)

// holds checks what every farm that was parsed must hold.
func holds(t *testing.T, p Parsed) {
	t.Helper()
	nodes := map[string]farm.Node{}
	for _, n := range p.Farm.Nodes {
		nodes[n.Name] = n
		if n.Local == (n.SSH != nil || n.SMB != nil || n.Agent) || n.Address == "" || n.Shell == "" {
			t.Errorf("node %+v cannot be reached", n)
		}
		if n.SSH != nil && (len(n.SSH.HostKeys)+len(n.SSH.HostCAs) == 0 || n.SSH.Key.IsZero() || n.SSH.User == "" || n.SSH.ConnectTimeout <= 0) {
			t.Errorf("node %s: SSH without what it needs", n.Name)
		}
	}
	issuers := map[string]bool{}
	for _, i := range p.Farm.Issuers {
		issuers[i.Name] = true
		if !strings.HasPrefix(strings.ToLower(i.Directory), "https://") {
			t.Errorf("issuer %s: directory %q", i.Name, i.Directory)
		}
	}
	names, places := map[string]bool{}, map[string]bool{}
	for _, s := range p.Farm.Sites {
		if !issuers[s.Issuer] || len(s.Names) == 0 || len(s.KeyTypes) == 0 || len(s.Targets) == 0 {
			t.Errorf("site %s lacks something: %+v", s.Name, s)
		}
		for _, target := range s.Targets {
			if _, known := nodes[target.Node]; !known && target.Kind != "share" || target.Site != s.Name {
				t.Errorf("target %s is on no node", target.Name)
			}
			if names[target.Name] || places[target.Identity] || target.Group == "" {
				t.Errorf("target %s: its name or place is not its own", target.Name)
			}
			names[target.Name], places[target.Identity] = true, true
			seen(t, target)
		}
		policyHolds(t, s)
	}
}

func seen(t *testing.T, target farm.Target) {
	t.Helper()
	if len(target.Endpoints) == 0 {
		t.Errorf("target %s is seen nowhere", target.Name)
	}
	for _, e := range target.Endpoints {
		if _, _, err := net.SplitHostPort(e.Address); err != nil || e.SNI == "" || strings.Contains(e.Address, "{") {
			t.Errorf("target %s: endpoint %+v", target.Name, e)
		}
	}
}

func policyHolds(t *testing.T, s farm.Site) {
	t.Helper()
	p := s.Policy
	if p.MaxParallel < 1 || p.Deadline <= 0 || p.HealthyDeadline <= 0 || p.Soak < 0 || p.Settle < 0 || p.Drift == "" {
		t.Errorf("site %s: policy %+v", s.Name, p)
	}
	for _, w := range p.Waves {
		if !slices.ContainsFunc(s.Targets, func(t farm.Target) bool { return has(t.Labels, w.Match) }) {
			t.Errorf("site %s: wave %s is empty", s.Name, w.Name)
		}
	}
	for _, w := range p.Windows {
		if _, err := time.LoadLocation(w.Zone); err != nil || w.From == w.To {
			t.Errorf("site %s: window %+v", s.Name, w)
		}
	}
}

// FuzzParse: no text makes Parse panic; every text gives either mistakes that
// point into it, or a farm that holds what farms hold.
func FuzzParse(f *testing.F) {
	for _, folder := range []string{"valid", "invalid"} {
		names, _ := filepath.Glob(filepath.Join("testdata", folder, "*.yaml"))
		for _, name := range names {
			text, err := os.ReadFile(name)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
		}
	}
	v := vocabulary(true)
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse(text, "farm.yaml", v)
		if err == nil {
			holds(t, p)
			return
		}
		ms, ok := errors.AsType[Mistakes](err)
		if !ok || len(ms) == 0 {
			t.Fatalf("no mistakes in %T", err)
		}
		end := strings.Count(string(lines(text)), "\n") + 1
		for _, m := range ms {
			if m.Line < 1 || m.Line > end || m.Column < 1 || m.Problem == "" || m.Picture == "" {
				t.Errorf("this mistake is nowhere: %#v", m)
			}
			if strings.ContainsFunc(m.Error(), func(c rune) bool { return c < ' ' && c != '\n' }) {
				t.Errorf("a control character is shown: %q", m.Error())
			}
		}
	})
}

// large is a farm of n sites on 100 nodes.
func large(n int) []byte {
	var b strings.Builder
	b.WriteString("farm: large\nissuers: {le: {acme: https://acme.example.com/directory}}\nnodes:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  n%d: {address: 10.0.0.%d, labels: {pool: p%d}, ssh: {user: d, key: {secret: k}, host_key: %q}}\n", i, i, i%10, testKey)
	}
	b.WriteString("sites:\n")
	for i := range n {
		fmt.Fprintf(&b, `  s%d:
    names: [s%d.example.com, www.s%d.example.com]
    keys: [ec256, rsa2048]
    targets:
      - kind: nginx
        on: {pool: p%d}
        options: {pem: /etc/nginx/tls/s%d.pem, test: [nginx, -t], reload: [nginx, -s, reload]}
        endpoints: [{port: 443}]
    policy: {canary: 2, waves: [{name: a, match: {pool: p%d}}]}
`, i, i, i, i%10, i, i%10)
	}
	return []byte(b.String())
}

const testKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINa2evsNirW6Bq7fOEdFxfawfAy7gywd+MYt964Fn8sy"

// TestLarge: 10,000 sites with 100,000 targets are read in a few seconds.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("not for -short: it reads 3 MB of YAML")
	}
	began := time.Now()
	p, err := Parse(large(10_000), "farm.yaml", vocabulary(false))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("took %v", took)
	}
	if len(p.Farm.Sites) != 10_000 || len(p.Farm.Sites[0].Targets) != 10 {
		t.Errorf("%d sites, %d targets in the first", len(p.Farm.Sites), len(p.Farm.Sites[0].Targets))
	}
}

func BenchmarkParse(b *testing.B) {
	text, v := large(1000), vocabulary(false)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(text, "farm.yaml", v); err != nil {
			b.Fatal(err)
		}
	}
}

// TestHostile: texts that make parsers slow or deep end soon, with mistakes.
func TestHostile(t *testing.T) {
	const n = 30_000
	bomb := "farm: a\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n"
	for i := 1; i < 12; i++ {
		bomb += fmt.Sprintf("x%d: &x%d [%s*x%d]\n", i, i, strings.Repeat(fmt.Sprintf("*x%d,", i-1), 9), i-1)
	}
	options := "\nsites: {s: {names: [a.b], targets: [{kind: nginx, on: a, options: {pem: *x11}}]}}\n"
	merge := "farm: a\nx0: &x0 {a: b}\n"
	for i := 1; i < 60; i++ {
		merge += fmt.Sprintf("x%d: &x%d {<<: *x%d, <<: *x%d}\n", i, i, i-1, i-1)
	}
	for name, text := range map[string]string{
		"brackets": strings.Repeat("[", n), "closed": strings.Repeat("[", n) + strings.Repeat("]", n),
		"dashes": strings.Repeat("- ", n), "questions": strings.Repeat("? ", n), "maps": strings.Repeat("{a: ", n),
		"same key": strings.Repeat("a: 1\n", n), "blank lines": "a: |\n" + strings.Repeat("\n", n) + "\t",
		"anchors": strings.Repeat("&a ", n), "tags": strings.Repeat("!a ", n), "documents": strings.Repeat("---\n", n),
		"bomb": bomb + options, "merge": merge + "nodes: *x59\n", "self": "farm: &a [*a]\nsites: &b {<<: *b}\n",
		"quote": `"` + strings.Repeat("x", n), "bom": "\xff\xfe\x00a", "returns": strings.Repeat("\r", n),
	} {
		t.Run(name, func(t *testing.T) {
			began := time.Now()
			if _, err := Parse([]byte(text), "farm.yaml", vocabulary(true)); err == nil {
				t.Error("want mistakes")
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
