package adopt

import (
	"strings"
	"testing"

	"github.com/certfarm/certfarm/internal/farm"
)

// Two servers of one sort on a node: each target has the commands of its own.
func TestEachServerHasItsOwnCommands(t *testing.T) {
	var spots []Spot
	for _, name := range []string{"one", "two"} {
		s := Server{Kind: "apache", Program: "/usr/sbin/apache2", Config: "/" + name + "/httpd.conf"}
		p := Spot{
			Place:  Place{Server: "apache", At: s.Config + ":1", Pairs: []Files{{Chain: "/" + name + ".pem", Key: "/" + name + ".pem"}}},
			Leaves: []FileLeaf{{Files: Files{Chain: "/" + name + ".pem", Key: "/" + name + ".pem"}, Names: []string{name + ".example.com"}, KeyType: farm.EC256}},
		}
		p.Ways.Commands, p.Ways.Unsure = Commands(s, "")
		spots = append(spots, p)
	}
	r := Sort(Facts{Node: farm.Node{Name: "web1"}, Spots: spots})
	one, two, _ := strings.Cut(r.YAML, "two-example-com:")
	for _, half := range []struct{ text, want string }{{one, "/one/httpd.conf"}, {two, "/two/httpd.conf"}} {
		if !strings.Contains(half.text, "reload: [/usr/sbin/apache2, -f, "+half.want+", -k, graceful]") {
			t.Errorf("the reload of %s is missing in\n%s", half.want, half.text)
		}
	}
}

// A server with a root of its own is not the one that systemd runs, and its commands
// name it.
func TestCommandsNameTheRoot(t *testing.T) {
	for _, c := range []struct {
		s    Server
		want string
	}{
		{Server{Kind: "nginx", Program: "nginx", Root: "/y"}, "nginx -p /y -s reload"},
		{Server{Kind: "nginx", Program: "nginx", Config: "conf/a.conf", Root: "/y"}, "nginx -c conf/a.conf -p /y -s reload"},
		{Server{Kind: "apache", Program: "/usr/sbin/apache2", Root: "/etc/apache2-b"}, "/usr/sbin/apache2 -d /etc/apache2-b -k graceful"},
		{Server{Kind: "apache", Program: "/usr/sbin/apache2", Root: "/etc/apache2"}, ""},
	} {
		all, _ := Commands(c.s, "")
		if got := strings.Join(all["reload"], " "); got != c.want {
			t.Errorf("%+v: %q, want %q", c.s, got, c.want)
		}
		if c.want != "" && c.s.Units() != nil {
			t.Errorf("%+v is said to be of %q", c.s, c.s.Units())
		}
	}
}

// A path that depends on where the server was started is told, not looked for.
func TestARelativeConfigurationIsTold(t *testing.T) {
	s := Server{Kind: "haproxy", Program: "haproxy", Config: "etc/h.cfg"}
	if _, problem := s.Tree(nil); !strings.Contains(problem, "--server haproxy --config FILE") {
		t.Errorf("got %q", problem)
	}
	s = Server{Kind: "nginx", Program: "nginx", Config: "conf/a.conf", Root: "/y"}
	if tree, problem := s.Tree(nil); tree.Main != "/y/conf/a.conf" || problem != "" {
		t.Errorf("got %q, %q", tree.Main, problem)
	}
}
