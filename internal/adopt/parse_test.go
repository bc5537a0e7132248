package adopt

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// read gives a parser what it asks for, out of a set of files, until it asks for
// nothing more.
func read(t testing.TB, parse func(Tree) Found, tree Tree, files map[string]string) Found {
	t.Helper()
	if tree.Texts == nil {
		tree.Texts = map[string]string{}
	}
	tree.Globs, tree.Failed = map[string][]string{}, map[string]string{}
	for range 20 {
		found := parse(tree)
		if len(found.Wants)+len(found.Reads) == 0 {
			return found
		}
		for _, pattern := range found.Wants {
			tree.Globs[pattern] = []string{}
			for name := range files {
				if ok, _ := path.Match(pattern, name); ok || name == pattern || strings.HasPrefix(name, pattern+"/") {
					tree.Globs[pattern] = append(tree.Globs[pattern], name)
				}
			}
			slices.Sort(tree.Globs[pattern])
		}
		for _, name := range found.Reads {
			if text, there := files[name]; there {
				tree.Texts[name] = text
			} else {
				tree.Failed[name] = "it is not there"
			}
		}
	}
	t.Fatal("it asks without end")
	return Found{}
}

// show is what was found as lines: where, names, ports, files.
func show(f Found) string {
	var b strings.Builder
	for _, p := range f.Places {
		var ports, pairs []string
		for _, l := range p.Listens {
			ports = append(ports, fmt.Sprintf("%s:%d", l.Host, l.Port))
		}
		for _, q := range p.Pairs {
			switch {
			case q.Store != "":
				pairs = append(pairs, q.Chain+"("+q.Store+")")
			case q.Key == q.Chain:
				pairs = append(pairs, q.Chain)
			default:
				pairs = append(pairs, q.Chain+"+"+q.Key)
			}
		}
		fmt.Fprintf(&b, "%s [%s] %s %s\n", p.At, strings.Join(p.Names, " "), strings.Join(ports, ","), strings.Join(pairs, " "))
	}
	for _, n := range f.Notes {
		b.WriteString("! " + n + "\n")
	}
	return b.String()
}

func same2(t *testing.T, got, want string) {
	t.Helper()
	if want = strings.TrimLeft(want, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

const nginxMain = `
user www-data; # a comment with { and ;
events { worker_connections 768; }
http {
    log_format main '$remote_addr "$request" { ; } #';
    map $ssl_server_name $cert { default "/etc/x.pem"; "~^(?<a>.+)\.example\.org$" /etc/y.pem; }
    ssl_certificate     tls/wide.pem;
    ssl_certificate_key tls/wide.key;
    include /etc/nginx/sites-enabled/*;
    include mime.types;
    server { listen 80 default_server; return 301 "https://$host$request_uri"; }
}
stream { server { listen 10.0.0.5:8883 ssl; ssl_certificate "/etc/a b/mqtt.pem"; ssl_certificate_key '/etc/a b/mqtt.pem'; proxy_pass b; } }
mail { server { listen 993 ssl; ssl_certificate /etc/mail.pem; ssl_certificate_key /etc/mail.key; } }
`

func TestNginx(t *testing.T) {
	files := map[string]string{
		"/etc/nginx/nginx.conf": nginxMain,
		"/etc/nginx/sites-enabled/shop": `server {
    listen 443 ssl http2; listen [::]:443 ssl;
    server_name shop.example.com .example.net ~^www\d+\.example\.com$ "";
    ssl_certificate /etc/letsencrypt/live/shop/fullchain.pem;
    ssl_certificate_key /etc/letsencrypt/live/shop/privkey.pem;
    ssl_certificate tls/shop.ec.pem; ssl_certificate_key tls/shop.ec.key;
    location ~ \.php$ { if ($a = "}") { return 403; } set $x "a\"b;c}"; }
    content_by_lua_block { local s = "}" ; if x then ngx.say('{') end }
}
server { listen 443; server_name wide.example.com; }   # ssl is said by the one above
server { listen 127.0.0.1:8443 ssl; listen unix:/run/x ssl; server_name by-name; ssl_certificate $cert; ssl_certificate_key data:$k; }
server { listen 8444 ssl; ssl_certificate /a.pem; ssl_certificate /b.pem; ssl_certificate_key /a.key; }
server { listen 80; ssl on; server_name old.example.com; include snippets/${x}; }
server { listen 81; server_name plain.example.com; }`,
		"/etc/nginx/mime.types": "types { text/html html htm; }",
	}
	want := `
/etc/nginx/sites-enabled/shop:1 [*.example.net example.net shop.example.com] :443 /etc/letsencrypt/live/shop/fullchain.pem+/etc/letsencrypt/live/shop/privkey.pem /etc/nginx/tls/shop.ec.pem+/etc/nginx/tls/shop.ec.key
/etc/nginx/sites-enabled/shop:10 [wide.example.com] :443 /etc/nginx/tls/wide.pem+/etc/nginx/tls/wide.key
/etc/nginx/sites-enabled/shop:13 [old.example.com] :80 /etc/nginx/tls/wide.pem+/etc/nginx/tls/wide.key
/etc/nginx/nginx.conf:13 [] 10.0.0.5:8883 /etc/a b/mqtt.pem
! /etc/nginx/sites-enabled/shop:3: server_name ~^www\d+\.example\.com$ is a pattern: the names of the certificate count
! /etc/nginx/nginx.conf:14: nginx as a mail proxy uses /etc/mail.pem: write its target and endpoints (starttls) yourself
! /etc/nginx/sites-enabled/shop:11: ssl_certificate $cert is no file that can be told from the configuration (a variable)
! /etc/nginx/sites-enabled/shop:12: 2 ssl_certificate and 1 ssl_certificate_key do not make pairs
`
	same2(t, show(read(t, Nginx, Tree{Main: "/etc/nginx/nginx.conf"}, files)), want)
	dump := "nginx: the configuration file /etc/nginx/nginx.conf syntax is ok\n"
	for _, name := range []string{"/etc/nginx/nginx.conf", "/etc/nginx/sites-enabled/shop", "/etc/nginx/mime.types"} {
		dump += "# configuration file " + name + ":\n" + files[name] + "\n"
	}
	texts, first := Dump(dump)
	same2(t, show(Nginx(Tree{Main: first, Texts: texts, Whole: true})), want)
}

func TestNginxLoops(t *testing.T) {
	f := read(t, Nginx, Tree{Main: "/n/nginx.conf"}, map[string]string{"/n/nginx.conf": "http { include *.conf; server {"})
	if len(f.Notes) == 0 || !strings.Contains(strings.Join(f.Notes, "\n"), "too deep") {
		t.Errorf("got %q", f.Notes)
	}
}

func TestApache(t *testing.T) {
	files := map[string]string{
		"/etc/apache2/apache2.conf": `# SSLEngine on
Define certs "/etc/my certs"
Include ports.conf
IncludeOptional sites-enabled/*.conf
IncludeOptional conf-enabled
Include ${CONFDIR}/extra.conf`,
		"/etc/apache2/ports.conf": `<IfModule ssl_module>
  Listen 443
</IfModule>
<IfModule !mod_ssl.c>
  Listen 444
</IfModule>
<IfDefine Never>
  <IfModule ssl_module>
    Listen 445
  </IfModule>
  Listen 446
</IfDefine>`,
		"/etc/apache2/sites-enabled/a.conf": `<VirtualHost *:443 [::]:443>
	ServerName https://A.example.com:443
	ServerAlias www.a.example.com \
	  *.a.example.com
	sslengine On
	SSLCertificateFile "${certs}/a \"x\".pem"
	SSLCertificateKeyFile tls/a.key
	SSLCertificateFile tls/a.rsa.pem
	SSLCertificateKeyFile tls/a.rsa.key
	SSLCertificateChainFile tls/chain.pem
</VirtualHost>
<VirtualHost *:80>
	ServerName a.example.com
</VirtualHost>
<VirtualHost *>
	ServerName any.example.com
	SSLEngine on
	SSLCertificateFile /etc/one.pem
</VirtualHost>`,
		"/etc/apache2/sites-enabled/b.conf": `MDomain md.example.com
<VirtualHost _default_:443>
  ServerName md.example.com
  SSLEngine on
</VirtualHost>
<VirtualHost 10.0.0.5:443>
  SSLEngine on
  SSLCertificateFile ${UNKNOWN}/b.pem
</VirtualHost>
<Macro V $h>
 <VirtualHost *:443>
  SSLEngine on
  SSLCertificateFile /m.pem
 </VirtualHost>
</Macro>`,
		"/etc/apache2/conf-enabled/deep/z": "Listen 8443 https",
	}
	tree := Tree{Main: "/etc/apache2/apache2.conf", Root: "/etc/apache2", Modules: []string{"ssl_module"}}
	same2(t, show(read(t, Apache, tree, files)), `
/etc/apache2/sites-enabled/a.conf:1 [*.a.example.com a.example.com www.a.example.com] :443 /etc/my certs/a "x".pem+/etc/apache2/tls/a.key /etc/apache2/tls/a.rsa.pem+/etc/apache2/tls/a.rsa.key
/etc/apache2/sites-enabled/a.conf:15 [any.example.com] :443,:8443 /etc/one.pem
! /etc/apache2/sites-enabled/a.conf:10: SSLCertificateChainFile tls/chain.pem: take the line out when Certfarm writes the files: the chain is in SSLCertificateFile
! Apache's macros (V $h) are not followed: look yourself whether they use certificates
! /etc/apache2/sites-enabled/b.conf:2: the certificate of md.example.com is mod_md's own: give the virtual host SSLCertificateFile and take MDomain out to adopt it
! /etc/apache2/sites-enabled/b.conf:6: SSLCertificateFile ${UNKNOWN}/b.pem is no file that can be told from the configuration
`)
}

func TestApacheOnWindows(t *testing.T) {
	files := map[string]string{
		"C:/Apache24/conf/httpd.conf":           "Define SRVROOT \"c:/Apache24\"\r\nServerRoot \"${SRVROOT}\"\r\nListen 443\r\nInclude conf/extra/httpd-ssl.conf\r\n",
		"c:/Apache24/conf/extra/httpd-ssl.conf": "<VirtualHost _default_:443>\r\nServerName win.example.com\r\nSSLEngine on\r\nSSLCertificateFile \"${SRVROOT}/conf/win.crt\"\r\nSSLCertificateKeyFile conf\\win.key\r\n</VirtualHost>\r\n",
	}
	same2(t, show(read(t, Apache, Tree{Main: "C:/Apache24/conf/httpd.conf"}, files)), `
c:/Apache24/conf/extra/httpd-ssl.conf:1 [win.example.com] :443 c:/Apache24/conf/win.crt+c:/Apache24/conf/win.key
`)
}

func TestHAProxy(t *testing.T) {
	files := map[string]string{
		"/etc/haproxy/haproxy.cfg": `global
    crt-base /etc/haproxy/certs
    stats socket /run/h.sock mode 660 level admin expose-fd listeners
    stats socket ipv4@127.0.0.1:9999 level user
frontend web # bind :1 ssl crt x
    bind :443,[::]:443 ssl crt shop.pem crt "/etc/a b/x.pem" alpn h2
    bind *:8443 ssl crt /etc/haproxy/dir/ crt-list /etc/haproxy/list
    bind :8444 ssl crt both.pem
    bind :8445 ssl crt "$CERTS/a.pem"
    bind :8446 ssl crt /gone.pem
    bind :80
backend b
    server s 10.0.0.9:443 ssl crt /etc/client.pem`,
		"/etc/haproxy/certs/shop.pem":       "",
		"/etc/a b/x.pem":                    "",
		"/etc/a b/x.pem.key":                "",
		"/etc/haproxy/dir/one.pem":          "",
		"/etc/haproxy/dir/two.pem.rsa":      "",
		"/etc/haproxy/dir/two.pem.ecdsa":    "",
		"/etc/haproxy/dir/one.pem.ocsp":     "",
		"/etc/haproxy/dir/.hidden":          "",
		"/etc/haproxy/certs/both.pem.rsa":   "",
		"/etc/haproxy/certs/both.pem.ecdsa": "",
		"/etc/haproxy/list":                 "# a comment\nshop.pem [alpn h2 verify none] Shop.example.com !no.shop.example.com *.shop.example.com\nshop.pem\n",
	}
	f := read(t, HAProxy, Tree{Main: "/etc/haproxy/haproxy.cfg"}, files)
	same2(t, show(f), `
/etc/haproxy/haproxy.cfg:6 [] :443 /etc/haproxy/certs/shop.pem
/etc/haproxy/haproxy.cfg:6 [] :443 /etc/a b/x.pem+/etc/a b/x.pem.key
/etc/haproxy/haproxy.cfg:7 [] :8443 /etc/haproxy/dir/one.pem
/etc/haproxy/haproxy.cfg:7 [] :8443 /etc/haproxy/dir/two.pem.ecdsa /etc/haproxy/dir/two.pem.rsa
/etc/haproxy/list:2 [*.shop.example.com shop.example.com] :8443 /etc/haproxy/certs/shop.pem
/etc/haproxy/list:3 [] :8443 /etc/haproxy/certs/shop.pem
/etc/haproxy/haproxy.cfg:8 [] :8444 /etc/haproxy/certs/both.pem.ecdsa /etc/haproxy/certs/both.pem.rsa
! /etc/haproxy/haproxy.cfg:9: the line has variables, whose values are the server's: write the targets of its files yourself
! /etc/haproxy/haproxy.cfg:10: crt /gone.pem is not there
`)
	if f.Socket != "/run/h.sock" {
		t.Errorf("socket %q", f.Socket)
	}
}

func TestLighttpd(t *testing.T) {
	printed := `config {
    server.port          = 8080
    server.modules       = ("mod_openssl", "mod_x")
    ssl.pemfile          = "/etc/ssl/a.pem"

    $SERVER["socket"] == "127.0.0.1:9443" {
        # block 1 }
        ssl.engine = "enable"
        $HTTP["host"] == "B.example.com" {
            ssl.pemfile = "/etc/ssl/b.pem"
            ssl.privkey = "/etc/ssl/b.key"
        } # end of $HTTP["host"] == "b.example.com"
        else $HTTP["host"] =~ "(^|\.)c\.example\.com$" {
            ssl.pemfile = "/etc/c\"x.pem"
        }
    }
    $HTTP["host"] =$ ".d.example.com" { ssl.pemfile = "rel.pem" }
    $HTTP["host"] == "e.example.com" { ssl.pemfile = "/etc/e.pem" }
}
`
	same2(t, show(Lighttpd(Tree{Main: "/l.conf", Texts: map[string]string{"/l.conf": printed}})), `
/l.conf, line 10 as printed [b.example.com] 127.0.0.1:9443 /etc/ssl/b.pem+/etc/ssl/b.key
/l.conf, line 14 as printed [] 127.0.0.1:9443 /etc/c"x.pem
/l.conf, line 18 as printed [e.example.com] 127.0.0.1:9443 /etc/e.pem
/l.conf, line 4 as printed [] 127.0.0.1:9443 /etc/ssl/a.pem
! /l.conf, line 17 as printed: ssl.pemfile rel.pem is relative to where lighttpd was started
`)
}

func TestTomcat(t *testing.T) {
	text := `<?xml version="1.0"?><Server><Service name="Catalina">
<!-- <Connector port="1" SSLEnabled="true"/> -->
<Connector port="8080"/>
<Connector port="8443" SSLEnabled="true"><SSLHostConfig hostName="T.example.com">
 <Certificate certificateKeystoreFile="conf/t.p12" certificateKeystoreType="PKCS12" certificateKeystorePassword="x"/></SSLHostConfig>
 <SSLHostConfig><Certificate certificateFile="/a.pem" certificateKeyFile="${catalina.base}/a.key" certificateChainFile="/c.pem"/></SSLHostConfig></Connector>
<Connector port="8444" SSLEnabled="true" keystoreFile="${user.home}/.keystore"/>
</Service></Server>`
	same2(t, show(Tomcat(Tree{Main: "/opt/t/conf/server.xml", Texts: map[string]string{"/opt/t/conf/server.xml": text}})), `
/opt/t/conf/server.xml, connector 8443 [t.example.com] :8443 /opt/t/conf/t.p12(pkcs12)
/opt/t/conf/server.xml, connector 8443 [] :8443 /a.pem+/opt/t/a.key
! /opt/t/conf/server.xml, connector 8443: certificateChainFile /c.pem: take it out when Certfarm writes the files: the chain is in certificateFile
! /opt/t/conf/server.xml, connector 8444: ${user.home}/.keystore has a property in it, whose value is the server's
`)
}

func TestRunning(t *testing.T) {
	got, notes := Running(`USER     COMMAND
root     nginx: master process /usr/sbin/nginx -g daemon on; master_process on;
www-data nginx: worker process
me       nginx: master process nginx -c /x/nginx.conf
mallory  nginx: master process /tmp/nginx -c /tmp/evil.conf
mallory  /tmp/apache2 -k start
www-data httpd -f /x/httpd.conf -d /x -D A -D FOREGROUND
root     nginx: master process nginx -p /y
root     /usr/sbin/apache2 -k start
root     /usr/sbin/apache2 -k start
root     httpd -f /x/httpd.conf -d /x -D A -D FOREGROUND
root     /usr/sbin/haproxy -Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid -S /run/haproxy-master.sock
haproxy  /usr/sbin/haproxy -sf 12 -x sockpair@5 -Ws -f /etc/haproxy/haproxy.cfg -p /run/haproxy.pid
www-data /opt/lighttpd -D -f /etc/lighttpd/lighttpd.conf
root     "C:\Apache24\bin\httpd.exe" -k runservice
tomcat   /usr/bin/java -Xmx1g -Dcatalina.base=/var/lib/tomcat10 -Dcatalina.home=/usr/share/tomcat10 org.apache.catalina.startup.Bootstrap start
root     grep nginx
`, "me")
	var lines []string
	for _, s := range got {
		lines = append(lines, strings.TrimRight(strings.Join([]string{s.Kind, s.Program, s.Config, s.Root, strings.Join(s.Defines, ",")}, " "), " "))
	}
	same2(t, strings.Join(append(lines, notes...), "\n")+"\n", `
nginx /usr/sbin/nginx
nginx nginx /x/nginx.conf
apache apache2
nginx nginx  /y
apache httpd /x/httpd.conf /x A
haproxy /usr/sbin/haproxy /etc/haproxy/haproxy.cfg
lighttpd lighttpd /etc/lighttpd/lighttpd.conf
apache C:/Apache24/bin/httpd.exe
tomcat /usr/bin/java /var/lib/tomcat10/conf/server.xml /var/lib/tomcat10
nginx of user mallory was left out (/tmp/evil.conf): a configuration that is neither the usual one nor that of a process of root is not asked for; name it with --server nginx --config FILE if it is yours
`)
}

// FuzzParsers: no text makes a parser panic, or ask without end.
func FuzzParsers(f *testing.F) {
	f.Add("nginx", nginxMain)
	f.Add("apache", "Define a b\nInclude *\n<VirtualHost *:443>\nSSLEngine on\nSSLCertificateFile \"${a}\\\"\n</VirtualHost>")
	f.Add("haproxy", "global\n crt-base /x\nfrontend a\n bind :443 ssl crt \"a\\ b\" crt-list y")
	f.Add("lighttpd", `$SERVER["socket"] == ":443" { ssl.engine = "enable" ssl.pemfile = "/a" } else $HTTP["host"] == "x" {`)
	f.Add("tomcat", `<Server><Service><Connector port="1" SSLEnabled="true"><SSLHostConfig><Certificate certificateFile="a"/></SSLHostConfig></Connector></Service></Server>`)
	f.Fuzz(func(t *testing.T, kind, text string) {
		Running(text, "")
		Dump(text)
		parse := Parsers()[kind]
		if parse == nil {
			parse = Nginx
		}
		found := read(t, parse, Tree{Main: "/a/main"}, map[string]string{"/a/main": text, "/a/x": text})
		for _, p := range found.Places {
			if len(p.Pairs) == 0 || p.At == "" {
				t.Errorf("a place without files: %+v", p)
			}
		}
	})
}
