package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/certfarm/certfarm/internal/farm"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// shop is a farm with something in every field.
func shop() farm.Farm {
	ssh := func(jump string) *farm.SSH {
		return &farm.SSH{
			Port: 22, User: "deploy", Key: farm.SecretRef{Secret: "deploy-key"}, Certificate: "cert", Jump: jump,
			HostKeys: []string{"ssh-ed25519 A"}, HostCAs: []string{"ssh-ed25519 B"}, ConnectTimeout: 10 * time.Second,
		}
	}
	on := func(site, node, address, pem string) farm.Target {
		return farm.Target{
			Name: site + "/nginx@" + node, Site: site, Node: node, Kind: "nginx",
			Options:  fmt.Appendf(nil, `{"pem":%q,"reload":["nginx","-s","reload"]}`, pem),
			Secrets:  map[string]farm.SecretRef{"password": {Secret: "pfx"}},
			Identity: node + ": file " + pem, Group: node + ": nginx", Labels: map[string]string{"zone": "a"},
			Endpoints: []farm.Endpoint{{Address: address + ":443", SNI: site + ".example.com", Path: "direct"}},
		}
	}
	policy := farm.Policy{
		Canary: farm.Share{Count: 1}, Waves: []farm.WaveSpec{{Name: "a", Match: map[string]string{"zone": "a"}, Approve: true}},
		MaxParallel: 1, Soak: 30 * time.Second, Deadline: time.Minute, HealthyDeadline: 2 * time.Minute,
		AbsentMax: farm.Share{Percent: 5, Least: 1}, Drift: farm.Heal,
		Windows: []farm.Window{{Days: []time.Weekday{time.Monday}, From: 2 * time.Hour, To: 5 * time.Hour, Zone: "UTC"}},
	}
	site := func(name string) farm.Site {
		return farm.Site{
			Name: name, Tags: []string{"prod"}, Names: []string{name + ".example.com", "www." + name + ".example.com"},
			Issuer: "le", Profile: "tlsserver", KeyTypes: []farm.KeyType{farm.EC256}, Strategy: farm.Central,
			Validations: []farm.Validation{{
				Names: []string{"*.example.com"}, Method: "http-01", Via: "redirect", To: "http://acme.example.com", Webroot: "/w", Front: true,
				Nodes: []string{"web1"}, Port: 8080, DNS: "auth", Delegate: map[string]string{"a": "b"},
			}},
			Targets:   []farm.Target{on(name, "web1", "10.0.0.1", "/tls/"+name+".pem"), on(name, "web2", "10.0.0.2", "/tls/"+name+".pem")},
			Balancers: []farm.Endpoint{{Address: "192.0.2.1:443", SNI: name + ".example.com", Path: "direct", StartTLS: "smtp", Proxy: 1}},
			Policy:    policy,
		}
	}
	return farm.Farm{
		Name: "shop", Proxy: "http://proxy:3128", Resolvers: map[string][]string{".": {"10.0.0.53:53"}},
		Controllers: []string{"10.0.0.9:8402"},
		DNS: []farm.DNS{{
			Name: "auth", Provider: "rfc2136", Options: []byte(`{"server":"10.0.0.1:53"}`), Silent: time.Minute, Resolvers: true,
			Secrets: map[string]farm.SecretRef{"key": {Secret: "tsig"}},
		}},
		Issuers: []farm.Issuer{{
			Name: "le", Directory: "https://acme.example.com/dir", Staging: "https://staging.example.com/dir", Contact: []string{"mailto:a@example.com"}, Profile: "tlsserver",
			PreferredChain: "Root X1", Roots: "pem", EAB: &farm.EAB{KeyID: "kid", HMAC: farm.SecretRef{Secret: "hmac"}},
		}},
		Nodes: []farm.Node{
			{Name: "web1", Address: "10.0.0.1", Labels: map[string]string{"zone": "a"}, Shell: "posix", Become: "sudo", SSH: ssh("web2")},
			{Name: "web2", Address: "10.0.0.2", Labels: map[string]string{"zone": "a"}, Shell: "posix", SSH: ssh("")},
			{Name: "www", Address: "10.0.0.3", Labels: map[string]string{"zone": "a"}, Shell: "posix", SMB: &farm.SMB{Share: `\\files\www`, Port: 4450, User: "deploy", Domain: "CORP", Password: farm.SecretRef{Secret: "smb"}}},
		},
		Sites: []farm.Site{site("api"), site("shop")},
	}
}

// line is a change in short: what, of what, on which targets, which fields.
func line(c Change) string {
	text := string(c.Do) + " " + c.Name
	if c.Certificate {
		text += " +certificate"
	}
	if len(c.Targets) > 0 {
		text += " on " + strings.Join(c.Targets, " ")
	}
	for _, f := range c.Fields {
		text += fmt.Sprintf("; %s: %s -> %s", f.Name, f.Old, f.New)
	}
	return text
}

func TestDiff(t *testing.T) {
	for _, test := range []struct {
		name string
		edit func(*farm.Farm)
		want []string
	}{
		{"nothing", func(*farm.Farm) {}, nil},
		{"names", func(f *farm.Farm) { f.Sites[1].Names = append(f.Sites[1].Names, "new.example.com") },
			[]string{"issue shop +certificate on shop/nginx@web1 shop/nginx@web2; names: shop.example.com, www.shop.example.com -> new.example.com, shop.example.com, www.shop.example.com"}},
		{"order of names", func(f *farm.Farm) { slices.Reverse(f.Sites[1].Names) },
			[]string{"site shop; main name: shop.example.com -> www.shop.example.com"}},
		{"profile and key type", func(f *farm.Farm) {
			f.Sites[0].Profile, f.Sites[0].KeyTypes = "shortlived", []farm.KeyType{farm.RSA2048, farm.EC256}
		}, []string{"issue api +certificate on api/nginx@web1 api/nginx@web2; profile: tlsserver -> shortlived; keys: ec256 -> ec256, rsa2048"}},
		{"another CA", func(f *farm.Farm) { f.Issuers[0].Directory = "https://other.example.com/dir" },
			[]string{"issuer le; acme: https://acme.example.com/dir -> https://other.example.com/dir",
				"issue api +certificate on api/nginx@web1 api/nginx@web2", "issue shop +certificate on shop/nginx@web1 shop/nginx@web2"}},
		{"another issuer", func(f *farm.Farm) { f.Sites[0].Issuer, f.Sites[0].Fallbacks = "x", []string{"y"} },
			[]string{"issue api +certificate on api/nginx@web1 api/nginx@web2; issuer: le -> x, y"}},
		{"an issuer to fall back to", func(f *farm.Farm) { f.Sites[0].Fallbacks = []string{"x"} },
			[]string{"site api; issuers: le -> le, x"}},
		{"issuers in another order", func(f *farm.Farm) { f.Sites[0].Issuer, f.Sites[0].Fallbacks = "x", []string{"le"} },
			[]string{"site api; issuers: le -> x, le"}},
		{"target added", func(f *farm.Farm) {
			more := f.Sites[1].Targets[0]
			more.Name, more.Node, more.Identity = "shop/nginx@web3", "web3", "web3: file /tls/shop.pem"
			f.Sites[1].Targets = append(f.Sites[1].Targets, more)
		}, []string{"roll-out shop on shop/nginx@web3"}},
		{"target gone", func(f *farm.Farm) { f.Sites[1].Targets = f.Sites[1].Targets[1:] },
			[]string{"release shop on shop/nginx@web1"}},
		{"target renamed", func(f *farm.Farm) { f.Sites[1].Targets[0].Name = "shop/main@web1" },
			[]string{"roll-out shop on shop/main@web1", "forget shop on shop/nginx@web1"}},
		{"option of both targets", func(f *farm.Farm) {
			for i := range f.Sites[0].Targets {
				f.Sites[0].Targets[i].Options = []byte(`{"pem":"/tls/api.pem","reload":["systemctl","reload","nginx"],"test":["nginx","-t"]}`)
			}
		}, []string{`roll-out api on api/nginx@web1 api/nginx@web2; options.reload: ["nginx","-s","reload"] -> ["systemctl","reload","nginx"]; options.test:  -> ["nginx","-t"]`}},
		{"endpoint", func(f *farm.Farm) { f.Sites[0].Targets[1].Endpoints[0].Proxy = 2 },
			[]string{"watch api on api/nginx@web2; endpoints: 10.0.0.2:443 api.example.com -> 10.0.0.2:443 api.example.com with PROXY v2"}},
		{"policy", func(f *farm.Farm) { f.Sites[0].Policy.Canary = farm.Share{Percent: 10, Least: 1} },
			[]string{"policy api; canary: 1 -> max(1, 10%)"}},
		{"site gone", func(f *farm.Farm) { f.Sites = f.Sites[:1] },
			[]string{"release shop on shop/nginx@web1 shop/nginx@web2"}},
		{"site new", func(f *farm.Farm) {
			more := shop().Sites[0]
			more.Name, more.Targets = "blog", nil
			f.Sites = append(f.Sites, more)
		}, []string{"issue blog +certificate; names:  -> api.example.com, www.api.example.com; issuer:  -> le; profile:  -> tlsserver; keys:  -> ec256; strategy:  -> central"}},
		{"site takes over another's place", func(f *farm.Farm) {
			heir := f.Sites[1].Targets[0]
			f.Sites = f.Sites[:1]
			heir.Site, heir.Name = "api", "api/shop@web1"
			f.Sites[0].Targets = append(f.Sites[0].Targets, heir)
		}, []string{"roll-out api on api/shop@web1", "release shop on shop/nginx@web2", "forget shop on shop/nginx@web1"}},
		{"node", func(f *farm.Farm) { f.Nodes[0].SSH.Port, f.Nodes[0].Labels = 2222, map[string]string{"zone": "b"} },
			[]string{"node web1; labels: zone=a -> zone=b; ssh.port: 22 -> 2222"}},
		{"node gone and new", func(f *farm.Farm) { f.Nodes[1] = farm.Node{Name: "here", Address: "127.0.0.1", Local: true} },
			[]string{"node here; address:  -> 127.0.0.1; local:  -> yes",
				"node web2; address: 10.0.0.2 -> ; labels: zone=a -> ; shell: posix -> ; ssh.user: deploy -> ; ssh.port: 22 -> ; ssh.key: secret deploy-key -> ; ssh.certificate: cert -> ; ssh.host_key: ssh-ed25519 A -> ; ssh.host_ca: ssh-ed25519 B -> ; ssh.connect_timeout: 10s -> "}},
		{"settings", func(f *farm.Farm) { f.Proxy, f.Resolvers = "", map[string][]string{"x": {"1.1.1.1:53"}} },
			[]string{"settings ; proxy: http://proxy:3128 -> ; resolvers.x:  -> 1.1.1.1:53; resolvers..: 10.0.0.53:53 -> "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			to := shop()
			test.edit(&to)
			var got []string
			for _, c := range Diff(shop(), to) {
				if c.Why == "" {
					t.Errorf("no reason: %+v", c)
				}
				got = append(got, line(c))
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// silent are fields that need no change of their own.
var silent = []string{
	"Site.Targets.Labels", // the node's
	"Site.Targets.Site",   // in the target's name
	"Site.Targets.Node",   // in the target's name

	// Only one field of a SecretRef is set, and a Share is a count or a percentage.
	"Issuers.EAB.HMAC.File", "Issuers.EAB.HMAC.Env", "Nodes.SSH.Key.File", "Nodes.SSH.Key.Env",
	"Nodes.SMB.Password.File", "Nodes.SMB.Password.Env",
	"Site.Policy.Canary.Least", "Site.Policy.FailureBudget.Least", "Site.Policy.AbsentMax.Count", "Site.Targets.AbsentMax.Least",
}

// TestEveryFieldCounts edits each field of a farm in turn: nothing that farm.yaml
// can say may change unseen.
func TestEveryFieldCounts(t *testing.T) {
	edits := 0
	for n := 0; ; n++ {
		to := shop()
		left := n
		path, done := mutate(reflect.ValueOf(&to).Elem(), "", &left)
		if !done {
			break
		}
		edits++
		if got := Diff(shop(), to); len(got) == 0 && !slices.Contains(silent, path) {
			t.Errorf("an edit of %s changes nothing", path)
		}
	}
	if edits < 60 {
		t.Errorf("only %d fields were edited", edits)
	}
}

// mutate edits the field with the given number, and says which it was.
func mutate(v reflect.Value, path string, left *int) (string, bool) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return path, false
		}
		return mutate(v.Elem(), path, left)
	case reflect.Struct:
		for i := range v.NumField() {
			name := v.Type().Field(i).Name
			if p, done := mutate(v.Field(i), strings.TrimPrefix(strings.Replace(path, "Sites", "Site", 1)+"."+name, "."), left); done {
				return p, true
			}
		}
		return "", false
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			for i := range v.Len() {
				if p, done := mutate(v.Index(i), path, left); done {
					return p, true
				}
			}
			return "", false
		}
	}
	if *left--; *left >= 0 {
		return "", false
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int, reflect.Int64:
		v.SetInt(v.Int() + int64(time.Minute))
	case reflect.Float64:
		v.SetFloat(v.Float() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		v.SetBytes([]byte(`{"other":1}`))
	case reflect.Map:
		v.Set(reflect.Zero(v.Type()))
	}
	return path, true
}

// farms draws farms with few names, so that two of them have much in common.
func farms(t *rapid.T, label string) farm.Farm {
	f := shop()
	name := rapid.SampledFrom([]string{"a", "b", "c"})
	var sites []farm.Site
	for _, n := range rapid.SliceOfDistinct(name, rapid.ID).Draw(t, label) {
		s := shop().Sites[0]
		s.Name = n
		s.Profile = name.Draw(t, "profile")
		s.Policy.MaxParallel = rapid.IntRange(1, 2).Draw(t, "parallel")
		s.Targets = nil
		for _, on := range rapid.SliceOfDistinct(name, rapid.ID).Draw(t, "nodes") {
			one := shop().Sites[0].Targets[0]
			one.Name, one.Identity = n+"/nginx@"+on, on+": "+name.Draw(t, "place")
			s.Targets = append(s.Targets, one)
		}
		sites = append(sites, s)
	}
	f.Sites = sites
	return f
}

func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		from, to := farms(t, "from"), farms(t, "to")
		if d := Diff(from, from); len(d) > 0 {
			t.Fatalf("a farm differs from itself: %v", d)
		}
		changes := Diff(from, to)
		if d := cmp.Diff(changes, Diff(from, to)); d != "" {
			t.Fatalf("not the same twice: %s", d)
		}
		touched := map[string]bool{}
		issued := map[string]bool{}
		for _, c := range changes {
			if c.Certificate != (c.Do == Issue) {
				t.Fatalf("%+v: a certificate is needed for an issue, and for nothing else", c)
			}
			issued[c.Name] = issued[c.Name] || c.Do == Issue
			for _, target := range c.Targets {
				touched[target] = true
			}
		}
		was := map[string]farm.Target{}
		for _, s := range from.Sites {
			for _, target := range s.Targets {
				was[target.Name] = target
			}
		}
		for _, s := range to.Sites {
			for _, target := range s.Targets {
				old, known := was[target.Name]
				if differs := !known || old.Identity != target.Identity; differs && !touched[target.Name] {
					t.Fatalf("%s is not touched", target.Name)
				}
				delete(was, target.Name)
			}
			i := slices.IndexFunc(from.Sites, func(o farm.Site) bool { return o.Name == s.Name })
			if needs := i < 0 || from.Sites[i].Profile != s.Profile; needs != issued[s.Name] {
				t.Fatalf("site %s: needs a certificate %v, gets one %v", s.Name, needs, issued[s.Name])
			}
		}
		for name := range was {
			if !touched[name] {
				t.Fatalf("%s is gone and not mentioned", name)
			}
		}
	})
}

func TestJSON(t *testing.T) {
	to := shop()
	to.Sites[0].Profile = "short"
	out, err := json.Marshal(Diff(shop(), to))
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"do":"issue","name":"api","targets":["api/nginx@web1","api/nginx@web2"],"certificate":true,` +
		`"why":"its certificate changes: profile","fields":[{"name":"profile","old":"tlsserver","new":"short"}]}]`
	if string(out) != want {
		t.Errorf("got  %s\nwant %s", out, want)
	}
}
