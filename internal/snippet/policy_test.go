package snippet

import (
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func TestPolicy(t *testing.T) {
	s, err := Policy(PolicyAsk{
		Node: "web1", Farm: "shop", Names: []string{"www.example.org", "*.example.org"}, Kinds: []string{"nginx"}, Folders: []string{"/etc/nginx/tls", "/var/lib/certfarm"},
		Commands: Named(map[string][][]string{"test": {{"nginx", "-t"}, {"nginx", "-t"}}, "reload": {{"nginx", "-s", "reload"}, {"/usr/sbin/nginx", "-s", "reload"}}}),
		KeyTypes: []string{"ec256"},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Node, Farm            string
		Names, Kinds, Folders []string
		Commands              map[string][]string
		Sockets               []string
		KeyTypes              []string `yaml:"key_types"`
		Activations           int
		Older                 bool
	}
	d := yaml.NewDecoder(strings.NewReader(s.Parts[0].Text))
	d.KnownFields(true)
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%v:\n%s", err, s.Parts[0].Text)
	}
	if got.Node != "web1" || len(got.Names) != 2 || len(got.Commands) != 3 || len(got.Commands["nginx_test"]) != 2 || len(got.Commands["nginx_reload_2"]) != 3 || got.Activations != 60 || got.Older {
		t.Errorf("%+v\n%s", got, s.Parts[0].Text)
	}
	for name, a := range map[string]PolicyAsk{
		"no target":   {Node: "web1"},
		"a line feed": {Node: "web1", Kinds: []string{"nginx"}, Folders: []string{"/etc\nolder: true"}},
	} {
		if s, err := Policy(a); err == nil {
			t.Errorf("%s: %s", name, s)
		}
	}
}

func TestReceiver(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJKPSwZjZoszhqmXr4XXD7GUgJcuXMaBrA2xsWWlDdGM"
	for _, c := range []struct {
		ask  ReceiverAsk
		want []string
		not  string
	}{
		{ReceiverAsk{Node: "web1", User: "root", Key: key + " somebody"}, []string{`restrict,command="/usr/local/bin/certfarm receive" ` + key + " certfarm-controllers\n"}, "sudo"},
		{ReceiverAsk{Node: "web1", User: "certfarm", Key: key}, []string{
			`restrict,command="sudo -n /usr/local/bin/certfarm receive" ` + key, "certfarm ALL=(root) NOPASSWD: /usr/local/bin/certfarm receive\n",
		}, "force-command"},
		{ReceiverAsk{Node: "web1", User: "root", Key: key, Signed: true}, []string{`-O clear -O force-command="/usr/local/bin/certfarm receive"`}, "restrict"},
	} {
		s, err := Receiver(c.ask)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(s.String(), want) || strings.Contains(s.String(), c.not) {
				t.Errorf("%+v gave no %q, or %q:\n%s", c.ask, want, c.not, s)
			}
		}
	}
	for name, a := range map[string]ReceiverAsk{
		"no key":          {Node: "web1", User: "root"},
		"options":         {Node: "web1", User: "root", Key: `command="sh" ssh-ed25519 AAAA`},
		"a user of sudo":  {Node: "web1", User: "ALL", Key: key},
		"a key with more": {Node: "web1", User: "root", Key: "ssh-ed25519 AAAA\nssh-rsa"},
	} {
		if s, err := Receiver(a); err == nil && strings.Contains(s.String(), "ssh-rsa") || err == nil && name != "a key with more" {
			t.Errorf("%s: %s", name, s)
		}
	}
}
