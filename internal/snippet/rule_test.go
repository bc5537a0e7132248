package snippet

import (
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/certfarm/certfarm/internal/farm"
)

var update = flag.Bool("update", false, "write testdata anew")

const thumbprint = "LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ"

func shop(server, via string) Ask {
	a := Ask{
		Server: server, Via: via, Site: "shop", Names: []string{"shop.example.com", "www.shop.example.com", "*.shop.example.com"},
		Controllers: []string{"10.77.0.5:8402", "10.77.0.6:8402"}, To: "http://acme.example.com", Thumbprint: thumbprint, Webroot: "/var/www/acme",
	}
	if server == IIS {
		a.Webroot = `C:\inetpub\acme`
	}
	return a
}

// golden holds a text against a file of testdata.
func golden(t *testing.T, file, got string) {
	t.Helper()
	file = filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew):\n%s", file, got)
	}
}

func TestRules(t *testing.T) {
	for _, server := range Servers() {
		for _, via := range Vias() {
			t.Run(server+"-"+via, func(t *testing.T) {
				s, err := Rule(shop(server, via))
				text := s.String()
				if err != nil {
					text = "error: " + err.Error() + "\n"
				}
				golden(t, server+"-"+via+".txt", text)
				for _, p := range s.Parts {
					if !strings.HasSuffix(p.Text, "\n") || strings.HasSuffix(p.Text, "\n\n") || p.Where == "" {
						t.Errorf("the part %q does not end with one line feed", p.Where)
					}
					parses(t, server, p.Text)
				}
			})
		}
	}
}

// parses holds a text of a server that is not run here to its syntax at least.
func parses(t *testing.T, server, text string) {
	t.Helper()
	switch server {
	case Traefik, Envoy:
		var v any
		if err := yaml.Unmarshal([]byte(text), &v); err != nil || v == nil {
			t.Errorf("no YAML: %v\n%s", err, text)
		}
	case IIS:
		d := xml.NewDecoder(strings.NewReader(text))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				t.Errorf("no XML: %v\n%s", err, text)
				return
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Ask)
		want   string
	}{
		"server":         {func(a *Ask) { a.Server = "thttpd" }, `no rule for server "thttpd"; there are nginx, apache`},
		"via":            {func(a *Ask) { a.Via = "pigeon" }, `no way "pigeon" to answer challenges; there are gateway`},
		"cannot":         {func(a *Ask) { a.Server, a.Via = Traefik, farm.Stateless }, "use --via gateway or --via redirect"},
		"wildcards":      {func(a *Ask) { a.Names = []string{"*.shop.test"} }, "use --dns"},
		"name":           {func(a *Ask) { a.Names = []string{"shop.test;"} }, `"shop.test;" is neither a host name`},
		"no controller":  {func(a *Ask) { a.Controllers = nil }, "no controller is known"},
		"no port":        {func(a *Ask) { a.Controllers = []string{"10.0.0.1"} }, "is not host:port"},
		"port 0":         {func(a *Ask) { a.Controllers = []string{"10.0.0.1:0"} }, "no port between 1 and 65535"},
		"everywhere":     {func(a *Ask) { a.Controllers = []string{"0.0.0.0:80"} }, "listens everywhere"},
		"zone":           {func(a *Ask) { a.Controllers = []string{"[fe80::1%eth0]:80"} }, "neither a host name"},
		"no To":          {func(a *Ask) { a.Via, a.To = farm.Redirect, "" }, "such as http://acme.example.com"},
		"To with path":   {func(a *Ask) { a.Via, a.To = farm.Redirect, "http://acme.test/x" }, "more or less than a scheme and a host"},
		"To a port":      {func(a *Ask) { a.Via, a.To = farm.Redirect, "http://acme.test:8402" }, "ports 80 (http) and 443 (https) only"},
		"To crossed":     {func(a *Ask) { a.Via, a.To = farm.Redirect, "http://acme.test:443" }, "ports 80 (http) and 443 (https) only"},
		"To itself":      {func(a *Ask) { a.Via, a.To = farm.Redirect, "http://shop.example.com" }, "redirect for ever"},
		"thumbprint":     {func(a *Ask) { a.Via, a.Thumbprint = farm.Stateless, thumbprint+`"` }, "43 characters"},
		"webroot":        {func(a *Ask) { a.Via, a.Webroot = farm.Distribute, "acme" }, "no absolute path"},
		"webroot climbs": {func(a *Ask) { a.Via, a.Webroot = farm.Distribute, "/var/../etc" }, "no absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			a := shop(Nginx, farm.Gateway)
			c.change(&a)
			s, err := Rule(a)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\n%s\nwant %q", err, s, c.want)
			}
		})
	}
}

func TestOf(t *testing.T) {
	site := farm.Site{Name: "shop", Names: []string{"a.test", "b.test", "*.c.test"}, Validations: []farm.Validation{
		{Names: []string{"*.c.test"}, Method: farm.DNS01, DNS: "zone"},
		{Names: []string{"b.test"}, Method: farm.HTTP01, Via: farm.Redirect, To: "http://acme.test"},
		{Method: farm.HTTP01, Via: farm.Stateless},
	}}
	if _, err := Of(site, Nginx, ""); err == nil || !strings.Contains(err.Error(), "say which one with --via") {
		t.Error("two ways, and one was chosen:", err)
	}
	a, err := Of(site, Nginx, farm.Redirect)
	if err != nil || a.To != "http://acme.test" || !slices.Equal(a.Names, []string{"b.test"}) {
		t.Errorf("%+v %v", a, err)
	}
	a, err = Of(site, Nginx, farm.Gateway)
	if err != nil || len(a.Names) != 3 || a.To != "" {
		t.Errorf("another way than farm.yaml's is for all names: %+v %v", a, err)
	}
	site.Validations = site.Validations[:1]
	a, err = Of(site, Nginx, "")
	if err != nil || a.Via != farm.Gateway || !slices.Equal(a.Names, []string{"a.test", "b.test"}) {
		t.Errorf("%+v %v", a, err)
	}
	site.Names = site.Names[2:]
	if _, err := Of(site, Nginx, ""); err == nil || !strings.Contains(err.Error(), "--dns") {
		t.Error("no name is proven over HTTP, and no error:", err)
	}
}

// TestManyNames holds lines of HAProxy within the 64 words and 2048 characters
// that it reads.
func TestManyNames(t *testing.T) {
	a := shop(HAProxy, farm.Gateway)
	a.Names = nil
	long := strings.Repeat(strings.Repeat("x", 60)+".", 4)
	for i := range 100 {
		a.Names = append(a.Names, long+string(rune('a'+i%26))+"bcde")
	}
	s, err := Rule(a)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(s.String()) {
		if len(line) > 2000 || len(strings.Fields(line)) > 60 && !strings.HasPrefix(line, "#") {
			t.Errorf("too long: %s", line)
		}
	}
	if n := strings.Count(s.Parts[0].Text, long); n != 100 {
		t.Errorf("%d names of 100", n)
	}
}

// FuzzRule holds that nothing foreign gets into a text: what is taken leaves a
// text with as many lines, quotes and brackets as harmless values of its sort do.
func FuzzRule(f *testing.F) {
	for _, bad := range []string{"shop.test", "a b", "x;}", "a\nb", `"`, "'", "`", "${x}", "{re.1}", "%[path]", "]]>", "<!--", "10.0.0.1:80", "::1", "[::1]:80", "/var/www", `C:\x`, "http://a.test", thumbprint, "\u212a.test", "a.test:80\x00"} {
		f.Add(bad, bad, bad, bad, bad, bad)
		f.Add("shop", "shop.test", bad, bad, bad, bad)
		f.Add(bad, "shop.test", "10.0.0.1:80", "http://acme.test", thumbprint, "/srv/acme")
		f.Add("shop", bad, "10.0.0.1:80", bad, thumbprint, bad)
	}
	f.Fuzz(func(t *testing.T, site, name, controller, to, thumb, webroot string) {
		for _, server := range Servers() {
			for _, via := range Vias() {
				a := Ask{Server: server, Via: via, Site: site, Names: []string{name}, Controllers: []string{controller}, To: to, Thumbprint: thumb, Webroot: webroot}
				s, err := Rule(a)
				if err != nil {
					continue
				}
				h, err := Rule(harmless(t, a))
				if err != nil {
					t.Fatal(err)
				}
				for i, p := range s.Parts {
					parses(t, server, p.Text)
					if got, want := shape(p.Text), shape(h.Parts[i].Text); got != want {
						t.Fatalf("%s %s: %q instead of %q in:\n%s", server, via, got, want, p.Text)
					}
				}
			}
		}
	})
}

// harmless is an Ask of the same sort, with other values.
func harmless(t *testing.T, a Ask) Ask {
	t.Helper()
	r, err := a.check()
	if err != nil {
		t.Fatal(err)
	}
	h := shop(a.Server, a.Via)
	h.Names = []string{like(r.Names[0])}
	if a.Via == farm.Gateway {
		h.Controllers = []string{net.JoinHostPort(like(r.Controllers[0].Host), "80")}
	}
	if a.Via == farm.Redirect {
		h.To = r.ToScheme + "://acme.example.com"
	}
	return h
}

func like(host string) string {
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return "shop.test"
	case ip.Is6():
		return "2001:db8::1"
	}
	return "10.0.0.1"
}

// shape is what of a text has a meaning to some server.
func shape(text string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune("{};\"'`#<>()|$%&=*?^,! \t\n", r) {
			return r
		}
		if r <= ' ' || r > '~' {
			return '?'
		}
		return -1
	}, text)
}
