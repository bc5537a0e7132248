package iis

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/deploy"
	"github.com/certfarm/certfarm/internal/farm"
	"github.com/certfarm/certfarm/internal/host"
)

// What netsh prints is read by its shape: in another language, with the blank lines
// of newer Windows, and with the forms that the entry of a store was seen in.
func TestRecords(t *testing.T) {
	const text = `
SSL 证书绑定:
-------------------------

    IP:端口                      : 0.0.0.0:443
    证书哈希             : 1A2B3C4D5E6F708192A3B4C5D6E7F8091A2B3C4D
    应用程序 ID               : {4DC3E181-e14b-4a21-b022-59fc669b0914}
    证书存储名称       : My
    Ctl Identifier               :
    协商客户端证书 : 已禁用
    扩展属性:

        PropertyId                   : 0
        Receive Window               : 1048576

    主机名:端口                  : WWW.example.com:443
    证书哈希             : 99887766554433221100FFEEDDCCBBAA99887766
    应用程序 ID               : {00000000-0000-0000-0000-000000000000}
    证书存储名称       : (null)

    中央证书存储 : 443
    证书哈希             : (null)
    应用程序 ID               : {4dc3e181-e14b-4a21-b022-59fc669b0914}
    证书存储名称       : (null)
`
	got := records(strings.Split(strings.ReplaceAll(text, "\n", "\r\n"), "\n"))
	if len(got) != 3 {
		t.Fatalf("got %d records: %+v", len(got), got)
	}
	if r := got[0]; r.at != "0.0.0.0:443" || r.hash != "1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d" || r.app != appID || r.store != "My" ||
		!strings.Contains(r.rest, "1048576") || strings.Contains(r.rest, "WWW") {
		t.Errorf("got %+v", r)
	}
	if r := got[1]; r.at != "www.example.com:443" || r.rest != "" || r.central("443") {
		t.Errorf("got %+v", r)
	}
	if !got[2].central("443") || got[2].central("8443") || got[0].central("443") {
		t.Errorf("got %+v", got[2])
	}
	if n := (node{records: got}); !n.listens("443") || n.listens("80") {
		t.Error("the store's port is not known")
	}
}

func TestBindings(t *testing.T) {
	for info, want := range map[string]string{
		"*:443:www.example.com":  "www.example.com:443 0.0.0.0:443",
		"10.0.0.7:8443:":         ":8443 10.0.0.7:8443",
		"[2001:DB8::7]:443:A.be": "a.be:443 [2001:db8::7]:443",
	} {
		b, err := binding{Info: info, Flags: flagSNI}.split()
		must(t, err)
		plain := b
		plain.Flags = 0
		if got := b.at() + " " + plain.at(); got != want {
			t.Errorf("%s is at %s, want %s", info, got, want)
		}
	}
	if _, err := (binding{Info: "net.pipe"}).split(); err == nil {
		t.Error("a binding without a port was read")
	}
}

func TestChanges(t *testing.T) {
	a := node{records: []record{{at: "a:443", hash: "aaaaaaaaaa", rest: "x: 1\ny: 2\n"}, {at: "b:443", hash: "bbbbbbbbbb"}}}
	with := func(edit func(n *node)) node {
		n := node{records: append([]record{}, a.records...)}
		edit(&n)
		return n
	}
	for name, c := range map[string]struct {
		after node
		want  string
	}{
		"as meant":          {with(func(n *node) { n.records[0].hash = "cccccccccc" }), ""},
		"not done":          {a, `a:443 has "aaaaaaaa" and not "cccccccc"`},
		"another":           {with(func(n *node) { n.records[0].hash, n.records[1].hash = "cccccccccc", "dddddddddd" }), "b:443 changed"},
		"another is gone":   {with(func(n *node) { n.records[0].hash = "cccccccccc"; n.records = n.records[:1] }), "b:443 changed"},
		"one more":          {with(func(n *node) { n.records[0].hash = "cccccccccc"; n.records = append(n.records, record{at: "e:1"}) }), "e:1 changed"},
		"lost a setting":    {with(func(n *node) { n.records[0].hash = "cccccccccc"; n.records[0].rest = "x: 1\ny: 3\n" }), `it had "y: 2" and has "y: 3"`},
		"store's own entry": {with(func(n *node) { n.records[0].hash = "cccccccccc"; n.records = append(n.records, record{at: "*:443"}) }), ""},
	} {
		got := strings.Join(changes(a, c.after, map[string]string{"a:443": "cccccccccc"}, []string{"443"}), "; ")
		if c.want == "" && got != "" || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}

// The scripts are constants that any code page carries, the command line is short
// enough for cmd.exe and passes every shell, and nothing in them runs a text.
func TestScripts(t *testing.T) {
	for name, text := range map[string]string{
		"common": commonScript, "look": lookScript, "import": importScript, "switch": switchScript,
		"remove": removeScript, "central": centralScript, "bootstrap": bootstrap,
	} {
		if i := strings.IndexFunc(text, func(r rune) bool { return r > '~' || r < ' ' && r != '\n' }); i >= 0 || text == "" {
			t.Errorf("%s: byte %d is not plain ASCII", name, i)
		}
		balanced(t, name, text)
		if bad := regexp.MustCompile(`(?i)Invoke-Expression|\biex\b|Start-Process|cmd(\.exe)?\s+/c|"[^"\n]*\$(data|m|c|note)\b`).FindString(text); bad != "" {
			t.Errorf("%s: %q makes a text of input", name, bad)
		}
		if name != "bootstrap" && strings.Contains(strings.ToLower(text), "scriptblock") {
			t.Errorf("%s makes a script", name)
		}
	}
	for _, shell := range []string{host.Cmd, host.PowerShell, host.Posix} {
		line, err := host.Quote(shell, command())
		must(t, err)
		if len(line) > 4000 {
			t.Errorf("%s: %d characters, and cmd.exe takes 8191", shell, len(line))
		}
	}
}

// balanced checks brackets outside strings and comments, which is as far as a script
// can be checked without PowerShell.
func balanced(t *testing.T, name, text string) {
	t.Helper()
	var open []rune
	var quote rune
	comment := false
	pairs := map[rune]rune{')': '(', ']': '[', '}': '{'}
	for _, r := range text {
		switch {
		case comment:
			comment = r != '\n'
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '\'' || r == '"':
			quote = r
		case r == '#':
			comment = true
		case strings.ContainsRune("([{", r):
			open = append(open, r)
		case pairs[r] != 0:
			if len(open) == 0 || open[len(open)-1] != pairs[r] {
				t.Fatalf("%s: a %q closes nothing", name, r)
			}
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 || quote != 0 {
		t.Errorf("%s: %q or a string is left open", name, open)
	}
}

func TestAnswers(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "no answer",
		"certfarm:H4sIAAAA":           "no answer",
		"certfarm:!!!:end":            "reading",
		"certfarm:AAAA:end":           "reading",
		"a prompt\ncertfarm:aGk=:end": "reading",
	} {
		if _, err := answer([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v", text, err)
		}
	}
	w := newWindows()
	w.registry["0123456789abcdef"] = "no base64!"
	if _, err := (shell{w}).look(t.Context()); err == nil || !strings.Contains(err.Error(), "registry") {
		t.Errorf("got %v", err)
	}
}

// An error for people has no secret, and says what is missing on the node.
func TestWhatPowerShellSays(t *testing.T) {
	w := newWindows()
	for said, want := range map[string]string{
		"The specified module 'WebAdministration' was not loaded":    "Web-Scripting-Tools",
		"The term 'Enable-WebCentralCertProvider' is not recognized": "Web-CertProvider",
		"System.UnauthorizedAccessException: Zugriff verweigert":     "administrator",
		"the password hunter2-hunter2 is wrong":                      "the password … is wrong",
	} {
		w.Exec = nil
		h := refusing{w, said}
		_, err := shell{h}.run(t.Context(), lookScript, struct{}{}, farm.NewSecret([]byte("hunter2-hunter2")))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "EncodedCommand") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestOptions(t *testing.T) {
	kind := Kind()
	for text, field := range map[string]string{
		`{"store": "share"}`:       "store",
		`{"mode": "all"}`:          "mode",
		`{"mode": "none"}`:         "mode",
		`{"certificates": "Root"}`: "certificates",
		`{"readers": "2012"}`:      "readers",
		`{"names": ["a b"]}`:       "names[0]",
		`{"sites": ["Shop*"]}`:     "sites[0]",
		`{"ports": [0]}`:           "ports[0]",
		`{"create": true}`:         "create",
		`{"create": true, "mode": "store-only", "sites": ["Shop"]}`: "create",
		`{"path": "C:\\certs"}`:                                          "path",
		`{"store": "ccs"}`:                                               "path",
		`{"store": "ccs", "path": "\\\\files\\certs"}`:                   "path",
		`{"store": "ccs", "path": "C:\\certs", "polling_interval": "x"}`: "polling_interval",
	} {
		_, err := kind.Check([]byte(text))
		if mistake, ok := errors.AsType[*deploy.FieldError](err); !ok || mistake.Field != field || mistake.Hint == "" {
			t.Errorf("%s: got %v, want a mistake in %s", text, err, field)
		}
	}
	facts, err := kind.Check([]byte(`{"names": ["a.example.com", "b.example.com"], "sites": ["Shop"], "ports": [443]}`))
	must(t, err)
	if got := fmt.Sprint(facts.Places, " ", facts.Group); got != "[iis binding a.example.com:443 of shop iis binding b.example.com:443 of shop] iis" {
		t.Errorf("got %s", got)
	}
	facts, err = kind.Check([]byte(`{"names": ["a.example.com"], "store": "ccs", "path": "C:\\certs"}`))
	must(t, err)
	if got := fmt.Sprint(facts.Places, " ", facts.Group); got != "[ccs c:/certs/a.example.com.pfx] iis c:/certs" {
		t.Errorf("got %s", got)
	}
}
